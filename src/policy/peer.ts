/**
 * The other end of a connection, as far as policy looks at it. http/ makes one a request.
 */
export interface Peer {
  /** Numeric address of the client; undefined: it is not known, as over a Unix socket. */
  readonly address: string | undefined;
  /** Verified against the listener's CA; absent: none was sent, or the listener asks for none. */
  readonly certificate?: PeerCertificate;
}

export interface PeerCertificate {
  /** SHA-256 of the DER bytes, hex. */
  readonly fingerprint: string;
  /** RFC 4514 text, most specific first: `CN=…,O=…`. */
  readonly subject: string;
  /** URI names among the alternative names: `spiffe://…`. */
  readonly uris: readonly string[];
  /** Unix milliseconds. */
  readonly notBefore: number;
  readonly notAfter: number;
}

/** A connection of which nothing is known. */
export const NO_PEER: Peer = { address: undefined };
