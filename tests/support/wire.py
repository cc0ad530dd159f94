"""One accepted connection, on a raw socket: it can hang, pause and reset on command."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Mapping

import attrs

from tests.support.ledger import Ledger, Request

__all__ = ["PATIENCE", "Exchange", "Wire"]

#: No read or write, and no hang, lasts longer than this: a test that fails must still end.
PATIENCE = 30.0

_HEAD_LIMIT = 256 * 1024


class Wire:
    """The server's end of a connection.

    Args:
        sock: an accepted socket, TLS or not; closed by `close` or `reset`.
        serial: the number of the connection.
    """

    def __init__(self, sock: socket.socket, serial: int) -> None:
        self._sock = sock
        self._serial = serial
        self._peer_port: int = sock.getpeername()[1]
        self._pending = b""
        self._stopping = threading.Event()
        self._shut = threading.Lock()  # guards the socket against a shutdown while it is closed
        sock.settimeout(PATIENCE)

    def wrap(self, context: ssl.SSLContext) -> None:
        """Go on under TLS.

        Raises:
            OSError: the client did not like our certificate, or we not its.
        """
        tls = context.wrap_socket(self._sock, server_side=True, do_handshake_on_connect=False)
        self._sock = tls
        tls.do_handshake()

    def read_request(self) -> Request | None:
        """Read the next request; None when the client closed the connection.

        Raises:
            OSError: the connection broke.
            ValueError: what came is not HTTP/1.1.
        """
        head = self._read_head()
        if not head:
            return None
        line, *lines = head.decode("latin-1").split("\r\n")
        method, target, version = line.split(" ")
        if version != "HTTP/1.1":
            raise ValueError(f"{version} is not HTTP/1.1")
        named = (text.partition(":") for text in lines if text)
        headers = {name.strip().lower(): value.strip() for name, _, value in named}
        raw = self._read_exactly(int(headers.get("content-length", "0")))
        return Request(method, target, headers, raw, self._peer_port, self._serial)

    def send(self, data: bytes) -> None:
        """Write all of `data`."""
        self._sock.sendall(data)

    def pause(self, seconds: float) -> None:
        """Wait a moment, or raise when the backend goes down meanwhile."""
        if self._stopping.wait(seconds):
            raise ConnectionAbortedError("the backend went down")

    def hang(self) -> None:
        """Say nothing until the client leaves or the backend goes down."""
        with contextlib.suppress(OSError):
            while self._sock.recv(65536):
                pass

    def stop(self) -> None:
        """Make whatever the connection's thread is doing come to an end; from any thread."""
        self._stopping.set()
        with self._shut, contextlib.suppress(OSError):
            # Unbound: SSLSocket's own would drop the TLS state under the thread that reads.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close in the ordinary way (FIN)."""
        with self._shut:
            self._sock.close()

    def reset(self) -> None:
        """Close so that the client sees "connection reset by peer" (RST)."""
        with self._shut, contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def _read_head(self) -> bytes:
        while b"\r\n\r\n" not in self._pending:
            received = self._sock.recv(65536)
            if not received:
                if self._pending:
                    raise ConnectionAbortedError("closed in the middle of a request")
                return b""
            self._pending += received
            if len(self._pending) > _HEAD_LIMIT and b"\r\n\r\n" not in self._pending:
                raise ValueError("the head of the request does not end")
        head, _, self._pending = self._pending.partition(b"\r\n\r\n")
        return head

    def _read_exactly(self, size: int) -> bytes:
        parts, missing = [self._pending[:size]], size - len(self._pending)
        self._pending = self._pending[size:]
        while missing > 0:
            received = self._sock.recv(min(missing, 1 << 20))
            if not received:
                raise ConnectionAbortedError("closed in the middle of a body")
            parts.append(received)
            missing -= len(received)
        return b"".join(parts)


@attrs.frozen(eq=False)
class Exchange:
    """One request and the means to answer it."""

    request: Request
    wire: Wire
    ledger: Ledger

    def accept(self) -> None:
        """Enter a batch into the books, before the client can know of it; nothing else counts."""
        if self.request.is_delivery:
            self.ledger.accept(self.request)

    def answer(
        self, code: int, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a complete, correct answer."""
        self.head(code, {"Content-Length": str(len(body)), **(headers or {})}, body)

    def head(self, code: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        """Send a head and the given part of a body; whether they fit is the caller's choice."""
        lines = [f"HTTP/1.1 {code} Scripted"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.wire.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
