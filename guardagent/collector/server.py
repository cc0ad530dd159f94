"""A small threaded web server for the collector, which can be stopped and started again."""

from __future__ import annotations

import logging
import socket
import socketserver
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIServer

from guardagent._clock import SYSTEM_CLOCK
from guardagent.collector.connection import Connection

if TYPE_CHECKING:
    from types import TracebackType

    from _typeshed.wsgi import WSGIApplication
    from typing_extensions import Self

__all__ = ["CollectorServer"]

_log = logging.getLogger(__name__)

_POLL_INTERVAL = 0.05
#: An agent sends a batch again that is answered so.
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class CollectorServer:
    """Serves a WSGI application over HTTP/1.1, a thread for each connection.

    Made for one machine: no TLS, and loopback unless told otherwise. `start` after `stop` listens
    at the same port again. Also a context manager.

    Args:
        app: the collector, or any WSGI application.
        port: 0 lets the system choose; `port` tells what it chose.
        timeout: seconds that the head of a request may take to come, and its body.
        idle_timeout: seconds that a connection is kept without a request.
        max_connections: at the same time; one more is answered 503 and closed.
    """

    def __init__(
        self,
        *,
        app: WSGIApplication,
        host: str = "127.0.0.1",
        port: int = 0,
        timeout: float = 10.0,
        idle_timeout: float = 75.0,
        max_connections: int = 512,
    ) -> None:
        self._app = app
        self._timeout = timeout
        self._idle_timeout = idle_timeout
        self._max_connections = max_connections
        self._listener: _Listener | None = None
        self._thread: threading.Thread | None = None
        self.host = host
        self.port = port

    @property
    def url(self) -> str:
        """The address to give to an agent as `endpoint`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def start(self) -> None:
        """Listen, and serve in a thread of its own; a second call does nothing.

        Raises:
            OSError: the address is taken or not this machine's.
        """
        if self._listener is not None:
            return
        connection = self._connection_class()
        listener = _Listener(self.host, self.port, connection, self._max_connections)
        listener.set_app(self._app)
        self.port = listener.server_port
        self._listener = listener
        self._thread = threading.Thread(
            target=listener.serve_forever,
            args=(_POLL_INTERVAL,),
            name="guardagent-collector",
            daemon=True,
        )
        self._thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """Stop listening and end every connection; idempotent.

        Args:
            timeout: seconds that requests under way have to be answered; then they are cut off.
        """
        listener, thread = self._listener, self._thread
        if listener is None or thread is None:
            return
        self._listener = self._thread = None
        listener.stopping.set()
        listener.shutdown()
        thread.join()
        listener.server_close()
        listener.end_connections(timeout)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _connection_class(self) -> type[Connection]:
        settings = {
            "timeout": self._timeout,
            "idle_timeout": self._idle_timeout,
            "stopping": threading.Event(),
        }
        return type("Connection", (Connection,), settings)


class _Listener(socketserver.ThreadingMixIn, WSGIServer):
    """The listening socket and the threads of its connections."""

    # Daemons, so that a process that never calls stop can end; stop joins them itself.
    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, host: str, port: int, connection: type[Connection], max_connections: int
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.stopping = connection.stopping
        # Guards _open, never held while a socket is used.
        self._lock = threading.Lock()
        self._open: dict[threading.Thread, socket.socket] = {}
        self._max_connections = max_connections
        super().__init__((host, port), connection)

    def server_bind(self) -> None:
        """Bind without http.server's look-up of the machine's name, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection its own thread."""
        thread = threading.Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            name="guardagent-collector-connection",
            daemon=True,
        )
        with self._lock:
            is_full = len(self._open) >= self._max_connections
            if not is_full:
                self._open[thread] = request
        if is_full:
            self._turn_away(request)
            return
        try:
            thread.start()
        except RuntimeError:  # no more threads to be had; the connection is closed by our caller
            with self._lock:
                del self._open[thread]
            raise

    def _turn_away(self, request: socket.socket) -> None:
        _log.warning("A connection was turned away: %d are open.", self._max_connections)
        with suppress(OSError):  # it may have ended by itself
            request.sendall(_FULL)
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection, then forget it."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._open.pop(threading.current_thread(), None)

    def handle_error(self, *_connection: Any) -> None:
        """Log what ended a connection, instead of printing it."""
        _log.error("A connection failed.", exc_info=True)

    def end_connections(self, timeout: float) -> None:
        """Let idle connections go at once, busy ones when answered or after `timeout`."""
        deadline = SYSTEM_CLOCK.monotonic() + timeout
        self._shut_down(socket.SHUT_RD)
        self._join(deadline)
        self._shut_down(socket.SHUT_RDWR)
        self._join(SYSTEM_CLOCK.monotonic() + 1.0)

    def _shut_down(self, how: int) -> None:
        with self._lock:
            connections = list(self._open.values())
        for connection in connections:
            with suppress(OSError):  # it may have ended by itself
                connection.shutdown(how)

    def _join(self, deadline: float) -> None:
        with self._lock:
            threads = list(self._open)
        for thread in threads:
            thread.join(max(0.0, deadline - SYSTEM_CLOCK.monotonic()))
