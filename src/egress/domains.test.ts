import assert from "node:assert/strict";
import { test } from "node:test";
import { domainProblem, hostProblem, networkProblem } from "./domains.ts";

test("domains, hosts and networks as operators may write them", () => {
  for (const entry of ["example.org", ".example.org", "xn--mgbh0fb.xn--kgbechtv", "93.184.216.34", "[2606:4700::1111]"])
    assert.equal(domainProblem(entry), undefined, entry);
  for (const entry of ["a.example:8443", "93.184.216.34", "[::1]:80", "localhost:80"])
    assert.equal(hostProblem(entry), undefined, entry);
  for (const entry of ["10.0.0.0/8", "64:ff9b::/96", "0.0.0.0/0", "2606:4700::1/128"])
    assert.equal(networkProblem(entry), undefined, entry);
});

test("anything that would never match is told at start, with what was meant", () => {
  assert.match(domainProblem("Example.ORG") ?? "", /example\.org meant/);
  assert.match(domainProblem("bücher.example") ?? "", /xn--bcher-kva\.example meant/);
  assert.equal(domainProblem("*.example.org"), "*.example.org: not a domain; is .example.org meant?");
  assert.equal(domainProblem("*.Example.org"), "*.Example.org: not a domain");
  assert.match(domainProblem("0x7f.1") ?? "", /127\.0\.0\.1 meant/);
  for (const entry of [
    "",
    ".",
    "*",
    "*.",
    "https://example.org",
    "example.org/",
    "example.org:443",
    "example.org:8443",
    "a b.example",
    "u@example.org",
    ".93.184.216.34",
    "..example.org",
  ])
    assert.notEqual(domainProblem(entry), undefined, entry);
  for (const entry of ["", "https://a.example", "a.example/", "A.example", "a.example:443"])
    assert.notEqual(hostProblem(entry), undefined, entry);
  for (const entry of ["", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/8/8", "example.org/8", "::/129", "10.0.0.0/-1"])
    assert.notEqual(networkProblem(entry), undefined, entry);
});
