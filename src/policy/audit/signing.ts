/**
 * The log's own key, and what a checkpoint signs.
 *
 * Ed25519; the private half is made in the state directory at the first use and never leaves it, the public half lies
 * beside it as a PEM for whoever verifies elsewhere. Who can read the state directory can sign: against them a head
 * helps that was taken away in time (docs/decisions/0015). Callers: the writer, verification, app.
 */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
  verify,
} from "node:crypto";
import { type StateDirectory, StateError } from "#policy/state.ts";

const PRIVATE_FILE = "audit-key.pem";
export const PUBLIC_FILE = "audit-key.pub";

/** A place in a chain, as a checkpoint signs it. */
export interface Head {
  readonly chain: string;
  readonly seq: number;
  /** Of the record `seq`. */
  readonly hash: string;
  readonly time: string;
}

export interface SignedHead extends Head {
  /** Base64. */
  readonly signature: string;
  /** Fingerprint of the key. */
  readonly key: string;
}

export interface Signer {
  /** SPKI, DER, base64. */
  readonly publicKey: string;
  readonly fingerprint: string;
  sign(head: Head): SignedHead;
}

/** @throws StateError the key cannot be made or read */
export function stateSigner(state: StateDirectory): Signer {
  state.read(PRIVATE_FILE) ?? state.create(PRIVATE_FILE, fresh());
  const secret = privateKey(state);
  const open = createPublicKey(secret);
  state.read(PUBLIC_FILE) ?? state.create(PUBLIC_FILE, Buffer.from(open.export({ type: "spki", format: "pem" })));
  const publicKey = open.export({ type: "spki", format: "der" }).toString("base64");
  const fingerprint = fingerprintOf(open);
  return {
    publicKey,
    fingerprint,
    sign: (head) => ({
      ...head,
      key: fingerprint,
      signature: sign(null, Buffer.from(textOf(head)), secret).toString("base64"),
    }),
  };
}

function fresh(): Buffer {
  return Buffer.from(generateKeyPairSync("ed25519").privateKey.export({ type: "pkcs8", format: "pem" }));
}

function privateKey(state: StateDirectory): KeyObject {
  try {
    const key = createPrivateKey(state.read(PRIVATE_FILE) ?? "");
    if (key.asymmetricKeyType === "ed25519") return key;
  } catch (error) {
    if (error instanceof StateError) throw error;
  }
  throw new StateError(`${PRIVATE_FILE} in ${state.path} is damaged. Restore it, or remove it to sign with a new key.`);
}

/** @param key PEM, or SPKI DER in base64. Undefined: not an Ed25519 key */
export function readPublicKey(key: string): KeyObject | undefined {
  try {
    const read = key.includes("-----BEGIN")
      ? createPublicKey(key)
      : createPublicKey({ key: Buffer.from(key, "base64"), format: "der", type: "spki" });
    return read.asymmetricKeyType === "ed25519" ? read : undefined;
  } catch {
    return undefined;
  }
}

export function fingerprintOf(key: KeyObject): string {
  return createHash("sha256")
    .update(key.export({ type: "spki", format: "der" }))
    .digest("hex")
    .slice(0, 16);
}

export function signatureHolds(key: KeyObject, head: Head, signature: string): boolean {
  return verify(null, Buffer.from(textOf(head)), key, Buffer.from(signature, "base64"));
}

/** The log's id stands in it, so that a signature of one log says nothing in another. */
function textOf({ chain, seq, hash, time }: Head): string {
  return `castellan audit head\n${chain}\n${seq}\n${hash}\n${time}\n`;
}
