"""TLS in front of a server that speaks none: takes connections and passes bytes on."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from types import TracebackType

__all__ = ["TLSFront"]

_PATIENCE = 10.0


class TLSFront:
    """Listens while it is entered.

    Args:
        port: of the server behind it, on loopback.
        context: a server's.
    """

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._target = port
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()  # guards the two below
        self._sockets: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> TLSFront:
        self._begin(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            for one in self._sockets:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            threads = list(self._threads)
        for thread in threads:
            thread.join(_PATIENCE)
        for one in self._sockets:
            one.close()

    def _begin(self, work: object, *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)  # type: ignore[arg-type] # one of the two below
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._sockets.append(plain)
            # One that does not trust the certificate goes away at once.
            with contextlib.suppress(OSError):
                outer = self._context.wrap_socket(plain, server_side=True)
                inner = socket.create_connection(("127.0.0.1", self._target))
                with self._lock:
                    self._sockets += outer, inner
                self._begin(_pump, outer, inner)
                self._begin(_pump, inner, outer)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    for one in (source, sink):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
