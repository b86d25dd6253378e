/**
 * The same tests over TLS: nothing that holds on a plain listener is lost on an encrypted one.
 */
import { overTls } from "#test/http/harness.ts";

overTls();
await import("./channel.test.ts");
