/*
 * The image's health check, as there is no curl: exit code 0 when the address answers 200, or with "alive" anything.
 *
 * usage: node health.mjs http://127.0.0.1:8001/health | https://… | unix:/run/castellan/ops.sock [alive]
 *
 * A certificate is not verified: it is for a name, and this is asked over loopback.
 */
import { request } from "node:http";
import { request as secure } from "node:https";

const alive = process.argv[3] === "alive";
const WAIT_MS = 4000;
const target = process.argv[2] ?? "http://127.0.0.1:8001/health";
const options = target.startsWith("unix:") ? { socketPath: target.slice(5), path: "/health" } : new URL(target);
const ask = target.startsWith("https:") ? secure : request;
const call = ask(options, { rejectUnauthorized: false, timeout: WAIT_MS }, ({ statusCode }) =>
  process.exit(alive || statusCode === 200 ? 0 : 1),
);
call.on("timeout", () => process.exit(1));
call.on("error", () => process.exit(1));
call.end();
