/**
 * Opens the doors of a server that is ready, and says what is loose about where they stand. Callers: serve.ts.
 */
import type { Settings } from "#config/settings.ts";
import type { Address } from "#http/listener.ts";
import type { Server } from "./server.ts";
import { StartupError } from "./startup-error.ts";
import type { Tls } from "./tls.ts";

/** Leaves the server as it is where one cannot be opened. @throws StartupError which one, and why */
export async function openListeners(server: Server, settings: Settings, tls: Tls): Promise<[Address, Address]> {
  const { host, port, reusePort, uds, opsHost, opsPort, opsUds } = settings;
  const doors = [
    ["public", uds === undefined ? { host, port, reusePort } : { path: uds }],
    ["ops", opsUds === undefined ? { host: opsHost, port: opsPort } : { path: opsUds }],
  ] as const;
  const opened: Address[] = [];
  for (const [plane, address] of doors) {
    try {
      opened.push(await server.http.listen(plane, address, tls[plane]));
    } catch (error) {
      const shown = "path" in address ? address.path : `${address.host}:${address.port}`;
      throw new StartupError(`the ${plane} listener cannot have ${shown}: ${reason(error)}`);
    }
  }
  return opened as [Address, Address];
}

function reason(error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === "EADDRINUSE") return "something else listens there (choose another with --port and --ops-port)";
  if (code === "EACCES") return "it is not allowed";
  return error instanceof Error ? error.message : String(error);
}

/** Keys that travel in the clear, operations that are too near the world. */
export function bindWarnings(settings: Settings, tls: Tls): string[] {
  const open = (host: string, socket: string | undefined): boolean =>
    socket === undefined && !/^(127\.|::1$|localhost$)/.test(host);
  const warnings: string[] = [];
  if (open(settings.host, settings.uds) && tls.public === undefined && !settings.trustProxy) {
    warnings.push(
      `the public listener is on ${settings.host} without TLS: keys and prompts travel in the clear. Give it --ssl-certfile, or put a proxy that ends TLS in front and say --trust-proxy`,
    );
  }
  if (open(settings.opsHost, settings.opsUds))
    warnings.push(`the operations listener is on ${settings.opsHost}: it belongs on loopback or a Unix socket`);
  return warnings;
}
