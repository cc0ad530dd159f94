"""A proxy for TLS: takes CONNECT and passes bytes on to one port of loopback."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType

from tests.support.wire import PATIENCE

__all__ = ["Tunnel"]


class Tunnel:
    """Listens while it is entered.

    Args:
        port: where every tunnel ends, whatever host the client asked for.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._lock = threading.Lock()  # guards _targets, _sockets and _threads
        self._targets: list[str] = []
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> Tunnel:
        self._begin(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with socket.create_connection(self._listener.getsockname()) as farewell:
            farewell.sendall(b"\r\n\r\n")
        with self._lock:
            accepting = self._threads[0]
        accepting.join(PATIENCE)
        with self._lock:
            sockets, threads = list(self._sockets), list(self._threads)
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(PATIENCE)
        for sock in [*sockets, self._listener]:
            sock.close()

    @property
    def url(self) -> str:
        """The proxy's URL."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def targets(self) -> list[str]:
        """The `host:port` of each CONNECT so far."""
        with self._lock:
            return list(self._targets)

    def _begin(self, target: object, *args: socket.socket) -> None:
        thread = threading.Thread(target=target, args=args, name="backend-tunnel")  # type: ignore[arg-type]
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            client.settimeout(PATIENCE)
            with self._lock:
                self._sockets.append(client)
            line = self._read_head(client).split(b"\r\n")[0].decode("latin-1")
            if not line:
                return  # the farewell
            with self._lock:
                self._targets.append(line.split(" ")[1])
            server = socket.create_connection(("127.0.0.1", self._port), PATIENCE)
            with self._lock:
                self._sockets.append(server)
            client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            self._begin(_pass_on, client, server)
            self._begin(_pass_on, server, client)

    @staticmethod
    def _read_head(client: socket.socket) -> bytes:
        head = b""
        while b"\r\n\r\n" not in head:
            received = client.recv(65536)
            if not received:
                return b""
            head += received
        return head


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while received := source.recv(65536):
            sink.sendall(received)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)
