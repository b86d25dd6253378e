/**
 * Hosts as operators write them in settings, brought to the one form that URLs are compared in, or refused at start.
 * Callers: app.
 */
import { BlockList, isIP, isIPv6 } from "node:net";
import { judgeName, plainUrl } from "./guarded-url.ts";
import { EgressError } from "./policy.ts";

/**
 * @param entry `example.org` for itself, `.example.org` for what is below it: an A-label, no scheme, no port
 * @returns undefined, or what is wrong, for people
 */
export function domainProblem(entry: string): string | undefined {
  const name = entry.startsWith(".") ? entry.slice(1) : entry;
  try {
    const { url, hostname, isAddress } = plainUrl(`https://${name}`);
    if (!isAddress) judgeName(hostname, false);
    if (url.port !== "" || url.host !== name) return `${entry}: a domain has no port`;
    if (entry.startsWith(".") && isIP(hostname) !== 0) return `${entry}: nothing is below an address`;
    return undefined;
  } catch (error) {
    if (!(error instanceof EgressError)) throw error;
    const meant = entry.startsWith("*.") ? entry.slice(1) : URL.parse(`https://${name}`)?.hostname;
    const nothing = meant === undefined || meant === entry || domainProblem(meant) !== undefined;
    return `${entry}: not a domain${nothing ? "" : `; is ${meant} meant?`}`;
  }
}

/** @returns undefined, or what is wrong with a host of an exact list (`host`, `host:port`), for people */
export function hostProblem(entry: string): string | undefined {
  try {
    return plainUrl(`https://${entry}`).url.host === entry ? undefined : `${entry}: not a host`;
  } catch (error) {
    if (!(error instanceof EgressError)) throw error;
    return `${entry}: not a host, or not in its plain form (host, or host:port)`;
  }
}

/** @returns undefined, or what is wrong with a CIDR block, for people */
export function networkProblem(entry: string): string | undefined {
  const [address = "", bits = "", rest] = entry.split("/");
  try {
    if (rest !== undefined || isIP(address) === 0 || !/^\d{1,3}$/.test(bits)) return `${entry}: not a CIDR block`;
    new BlockList().addSubnet(address, Number(bits), isIPv6(address) ? "ipv6" : "ipv4");
    return undefined;
  } catch {
    return `${entry}: not a CIDR block`;
  }
}
