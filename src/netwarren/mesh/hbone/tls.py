"""One end of a TLS connection without a socket: ciphertext in, plaintext out, and the other way round.

Rules: whatever the other side is to be sent is in `take` after each call, also after one that raised (an alert);
no plaintext is handed out before the peer is verified.
Does not belong here: certificates, contexts and who is accepted (they come as `ssl.SSLContext` and ``verify``).
"""

import ssl
from collections.abc import Callable
from typing import TypeAlias

from netwarren.mesh.hbone.client_hello import NO_APPLICATION_PROTOCOL, ClientHello
from netwarren.mesh.hbone.failure import TlsFailure

Verify: TypeAlias = Callable[[ssl.SSLObject], None]
"""Looks at a finished handshake (certificates, ALPN) and raises a `MeshError` with a ``flag`` to end it."""

HTTP2 = "h2"
"""The protocol of tunnels, as ALPN names it (RFC 9113, section 3.1)."""

_RECORD = 16384  # most plaintext in one record (RFC 8446, section 5.1), and so most that one read returns


class TlsSession:
    """TLS over memory (`ssl.MemoryBIO`); ``verify`` is called once, when the handshake is done.

    A client writes its hello with `start`. ``ended`` is whether the peer said that it sends no more (close_notify).
    A server refuses who offers by ALPN others than HTTP/2 only.
    """

    def __init__(self, context: ssl.SSLContext, *, server_side: bool, verify: Verify | None = None) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        # No server name: peers are known by their SPIFFE identities, which `verify` compares.
        self.object = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self._verify = verify
        self._hello = ClientHello() if server_side else None
        self.established = False
        self.ended = False
        self._closed = False

    @property
    def alpn(self) -> str | None:
        """What was agreed on by ALPN, None before the handshake is done and where nothing was."""
        return self.object.selected_alpn_protocol()

    @property
    def peer_certificate(self) -> bytes | None:
        """The peer's certificate in DER, None if it showed none."""
        return self.object.getpeercert(binary_form=True)

    def start(self) -> bytes:
        """A client's first flight; nothing for a server."""
        self._handshake()
        return self.take()

    def receive(self, ciphertext: bytes) -> bytes:
        """The plaintext in ``ciphertext``; raises `TlsFailure`, or what ``verify`` raised."""
        if self._hello is not None and (protocols := self._hello.feed(ciphertext)) is not None:
            self._hello = None
            self._refuse_others(protocols)
        self._incoming.write(ciphertext)
        if not self.established and not self._handshake():
            return b""
        read = self.object.read
        pieces = []
        try:
            while piece := read(_RECORD):
                pieces.append(piece)
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        except ssl.SSLError as error:
            raise _failure(error) from error
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def send(self, plaintext: bytes) -> bytes:
        """What carries ``plaintext`` to the peer, after anything else that waits; needs ``established``."""
        try:
            if plaintext:
                self.object.write(plaintext)
        except ssl.SSLError as error:
            raise _failure(error) from error
        return self._outgoing.read()

    def take(self) -> bytes:
        """What is to be sent besides: handshake messages, alerts."""
        return self._outgoing.read()

    def _refuse_others(self, protocols: tuple[str, ...]) -> None:
        if protocols and HTTP2 not in protocols:
            self._outgoing.write(NO_APPLICATION_PROTOCOL)
            raise TlsFailure(
                f"tls error: no application protocol: {HTTP2} is not among {', '.join(protocols)}"
            )

    def close(self) -> bytes:
        """The close_notify that ends this direction; nothing if the handshake was not done or it was sent before."""
        if self.established and not self._closed:
            self._closed = True
            try:
                self.object.unwrap()
            except ssl.SSLError:
                pass  # it wants the peer's close_notify, which need not come (RFC 8446, section 6.1)
        return self._outgoing.read()

    def _handshake(self) -> bool:
        try:
            self.object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise _failure(error) from error
        if self._verify is not None:
            self._verify(self.object)
        self.established = True
        return True


def _failure(error: ssl.SSLError) -> TlsFailure:
    detail = getattr(error, "verify_message", "") or error.reason or error.strerror or str(error)
    return TlsFailure(f"tls error: {str(detail).lower().replace('_', ' ')}")
