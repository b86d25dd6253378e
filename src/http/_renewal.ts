/**
 * New material for a listener that is open: later connections have it, earlier ones go as far as they still may.
 *
 * Invariant: who came in by an authority that is trusted no more is cut at once; when the authorities or the lists of
 * revoked certificates change otherwise, everybody who came in by a certificate connects anew before another request.
 * Callers: listener.ts.
 */
import { X509Certificate } from "node:crypto";
import type { Server } from "node:https";
import { TLSSocket } from "node:tls";
import { chainOf } from "./_certificate.ts";
import type { Connections, Lines } from "./_connections.ts";
import { type TlsMaterial, type TlsSource, tlsOptions } from "./tls.ts";

/** @returns ends it */
export function followMaterial(server: Server, lines: Lines, connections: Connections, source: TlsSource): () => void {
  let present = source.material();
  return source.onChange(() => {
    const before = present;
    present = source.material();
    server.setSecureContext(tlsOptions(present, source.clients));
    if (source.clients === "none" || trust(before) === trust(present)) return;
    // They would end by the old material.
    connections.dropHandshakes();
    judgeAnew(server, lines, present);
  });
}

function trust({ clientAuthorities, revocationLists }: TlsMaterial): string {
  return [...clientAuthorities, "", ...revocationLists].join("\n");
}

function judgeAnew(server: Server, lines: Lines, { clientAuthorities }: TlsMaterial): void {
  const authorities = clientAuthorities.map((text) => new X509Certificate(text));
  for (const [socket, line] of lines) {
    if (!(socket instanceof TLSSocket)) continue;
    const chain = chainOf(socket);
    if (chain.length === 0) continue;
    line.retired = true;
    if (!chain.some((certificate) => leadsTo(certificate, authorities))) socket.destroy();
    else if (line.current === undefined) socket.destroySoon();
  }
  server.closeIdleConnections();
}

function leadsTo(certificate: X509Certificate, authorities: readonly X509Certificate[]): boolean {
  return authorities.some(
    (authority) =>
      authority.fingerprint256 === certificate.fingerprint256 ||
      (certificate.checkIssued(authority) && certificate.verify(authority.publicKey)),
  );
}
