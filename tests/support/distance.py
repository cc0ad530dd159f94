"""A way over loopback that takes as long as one to a server far away."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from types import TracebackType

__all__ = ["Distance"]

_PATIENCE = 10.0
_Bytes = tuple[float, bytes]


class Distance:
    """Passes bytes on to one port of loopback, each way that much later, while it is entered.

    Args:
        port: of the server.
        seconds: for one way.
    """

    def __init__(self, port: int, seconds: float) -> None:
        self._port = port
        self._seconds = seconds
        self._lock = threading.Lock()  # guards the two below
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._is_over = False

    def __enter__(self) -> Distance:
        self._begin(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over = True
        socket.create_connection(("127.0.0.1", self.port)).close()  # wakes the one that accepts
        self._threads[0].join(_PATIENCE)
        for sock in [*self._sockets, self._listener]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_PATIENCE)
        for sock in [*self._sockets, self._listener]:
            sock.close()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def _begin(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, name="distance")  # type: ignore[arg-type]
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            with self._lock:
                self._sockets.append(near)
            if self._is_over:
                return
            far = socket.create_connection(("127.0.0.1", self._port), _PATIENCE)
            far.settimeout(None)
            with self._lock:
                self._sockets.append(far)
            for source, sink in ((near, far), (far, near)):
                sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
                under_way: queue.SimpleQueue[_Bytes] = queue.SimpleQueue()
                self._begin(self._leave, source, under_way)
                self._begin(self._arrive, sink, under_way)

    def _leave(self, source: socket.socket, under_way: queue.SimpleQueue[_Bytes]) -> None:
        with contextlib.suppress(OSError):
            while received := source.recv(65536):
                under_way.put((time.monotonic() + self._seconds, received))
        under_way.put((0.0, b""))

    @staticmethod
    def _arrive(sink: socket.socket, under_way: queue.SimpleQueue[_Bytes]) -> None:
        with contextlib.suppress(OSError):
            while (one := under_way.get())[1]:
                threading.Event().wait(max(0.0, one[0] - time.monotonic()))
                sink.sendall(one[1])
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
