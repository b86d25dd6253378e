import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { corpus } from "#test/corpora.ts";
import { guardedUrl, type UrlRules } from "./guarded-url.ts";
import { EgressError } from "./policy.ts";

const rules = (...hosts: string[]): UrlRules => ({ hosts, localNames: false, plainLoopback: false });
const isForbidden = (error: unknown): boolean => error instanceof EgressError && error.code === "forbidden";

function accepts(text: string, given: UrlRules): boolean {
  try {
    guardedUrl(text, given);
    return true;
  } catch (error) {
    assert.ok(isForbidden(error), String(error));
    return false;
  }
}

test("plain URLs of named hosts pass", () => {
  for (const [text, host] of [
    ["https://login.example.com/realms/a/.well-known/openid-configuration", "login.example.com"],
    ["https://login.example.com", "login.example.com"],
    ["https://login.example.com?x=1", "login.example.com"],
    ["https://login.example.com:8443/a?b=c%20d", "login.example.com:8443"],
    ["https://xn--mgbh0fb.xn--kgbechtv/", "xn--mgbh0fb.xn--kgbechtv"],
    ["https://93.184.216.34/jwks", "93.184.216.34"],
    ["https://[2606:4700::1111]:444/jwks", "[2606:4700::1111]:444"],
  ] as const)
    assert.ok(accepts(text, rules(host)), text);
  assert.deepEqual(
    { ...guardedUrl("https://[2606:4700::1111]:444/", rules("[2606:4700::1111]:444")), url: 0 },
    { hostname: "2606:4700::1111", isAddress: true, url: 0 },
  );
});

test("everything that two readers may read differently is refused, even where its host is named", () => {
  const hosts = ["a.example.com", "127.0.0.1", "localhost", "a.example.com:443", "[::1]", "a.example.com."];
  for (const text of [
    "",
    "a.example.com",
    "//a.example.com/",
    "http://a.example.com/",
    "ftp://a.example.com/",
    "file:///etc/passwd",
    "HTTPS://a.example.com/",
    "https:a.example.com",
    "https:/a.example.com/",
    "https:///a.example.com/",
    "https:\\\\a.example.com\\",
    "https://a.example.com\\@evil.example/",
    "https://evil.example\\@a.example.com/",
    "https://user@a.example.com/",
    "https://user:pw@a.example.com/",
    "https://@a.example.com/",
    "https://evil.example#@a.example.com/",
    "https://a.example.com#@evil.example/",
    "https://a.example.com/#x",
    "https://A.example.com/",
    "https://a.EXAMPLE.com/",
    "https://a.example.com:443/",
    "https://a.example.com:0443/",
    "https://a.example.com:/",
    "https://a.example.com./",
    "https://a%2eexample.com/",
    "https://a。example.com/",
    "https://ａ.example.com/",
    "https://ä.example.com/",
    " https://a.example.com/",
    "https://a.example.com/ ",
    "https://a.example.com/a b",
    "https://a.exam\tple.com/",
    "https://a.example.com/\r\nX: y",
    "https://a.example.com/\0",
    "https://a.example.com/ä",
    `https://a.example.com/${"x".repeat(2048)}`,
    "https://0x7f.1/",
    "https://0177.0.0.1/",
    "https://2130706433/",
    "https://127.1/",
    "https://①②⑦.0.0.1/",
    "https://127。0。0。1/",
    "https://[0:0:0:0:0:0:0:1]/",
    "https://[::1%25lo]/",
    "https://[::ffff:127.0.0.1]/",
    "https://localhost/",
    "https://b.example.com/",
    "https://a.example.com:8443/",
    "https://xa.example.com/",
    "https://a.example.com.evil.example/",
  ])
    assert.ok(!accepts(text, rules(...hosts)), JSON.stringify(text));
});

test("names that lead inside need to be allowed; onion never", () => {
  for (const name of [
    "keycloak",
    "localhost",
    "a.localhost",
    "idp.local",
    "idp.internal",
    "idp.home.arpa",
    "idp.corp",
  ]) {
    assert.ok(!accepts(`https://${name}/`, rules(name)), name);
    assert.ok(accepts(`https://${name}/`, { ...rules(name), localNames: true }), name);
  }
  for (const name of ["x.onion", "x.invalid", "a..b", "-a.com", `${"a".repeat(64)}.com`, "a.b.1e"])
    assert.ok(!accepts(`https://${name}/`, { ...rules(name), localNames: true }), name);
  assert.ok(!accepts("http://localhost/", { ...rules("localhost"), localNames: true }));
  assert.ok(accepts("http://localhost:81/", { hosts: ["localhost:81"], localNames: true, plainLoopback: true }));
});

interface Case {
  readonly input: string;
  readonly base?: string | null;
  readonly failure?: boolean;
  readonly host?: string;
  readonly username?: string;
}

function hostNames(each: Case): string[] {
  const name = URL.parse(each.input)?.hostname ?? "";
  return [name, name.slice(Math.max(0, name.indexOf(".")))].filter((domain) => domain !== "");
}

test("of the web platform's URL cases only those pass whose host stands in them as it is parsed", (t) => {
  const folder = corpus(t, "url-wpt");
  if (folder === undefined) return;
  const read = (name: string) => JSON.parse(readFileSync(join(folder, "tests/wpt", name), "utf8")) as unknown[];
  const cases = read("urltestdata.json").filter((each): each is Case => typeof each === "object");
  const passed = cases.filter((each) => {
    const hosts = [each.host ?? "", URL.parse(each.input)?.host ?? ""];
    if (!accepts(each.input, { hosts, localNames: true, plainLoopback: true })) return false;
    assert.ok(each.failure !== true, each.input);
    assert.equal(each.username, "");
    assert.equal(/^https?:\/\/([^/?]+)/.exec(each.input)?.[1], each.host, each.input);
    return true;
  });
  const ports = [80, 443, 8080, 81, 65_535];
  const byDomain = cases.filter((each) => {
    const domains = hostNames(each);
    if (!accepts(each.input, { hosts: [], domains, ports, localNames: false, plainLoopback: false, plainPublic: true }))
      return false;
    assert.ok(each.failure !== true && ["", undefined].includes(each.username), each.input);
    assert.equal(/^https?:\/\/([^/?]+)/.exec(each.input)?.[1], each.host, each.input);
    return true;
  });
  const spelled = read("toascii.json").filter((each): each is { input: string; output: string | null } => {
    return typeof each === "object" && each !== null && "input" in each;
  });
  for (const { input, output } of spelled) {
    const ok = accepts(`https://${input}/`, { hosts: [output ?? input], localNames: true, plainLoopback: false });
    if (ok) assert.equal(input, output, input);
  }
  t.diagnostic(
    `${cases.length} cases, ${passed.length} pass the guard, ${byDomain.length} by domains; ${spelled.length} names`,
  );
  assert.ok(cases.length > 800 && passed.length > 10 && passed.length < cases.length / 3);
  assert.ok(byDomain.length > 10 && byDomain.length <= passed.length);
});
