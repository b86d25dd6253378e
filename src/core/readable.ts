/** JSON of a client's that cannot be read, as the Fault that says where. Called by http and wire. */
import { JsonError } from "#base/json.ts";
import { clip, MAX_PATH } from "./conform.ts";
import { Fault } from "./fault.ts";

/** @param unit of the offsets that the reader tells. @throws Fault invalid_json */
export function readable<T>(unit: "byte" | "character", read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
    const param = clip(error.path, MAX_PATH);
    throw new Fault(
      "invalid_json",
      `The body is not JSON that is taken: ${error.message} (at ${unit} ${error.offset}).`,
      param === "" ? {} : { param },
    );
  }
}
