"""One connection to the collector: HTTP/1.1 requests one after the other, on wsgiref's parts."""

from __future__ import annotations

import io
import logging
from typing import IO, TYPE_CHECKING, Any, ClassVar, cast
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler

from guardagent._clock import SYSTEM_CLOCK
from guardagent._version import __version__

if TYPE_CHECKING:
    import socket
    import threading
    from types import TracebackType
    from wsgiref.headers import Headers

    from _typeshed import WriteableBuffer

    _ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

__all__ = ["Connection"]

_log = logging.getLogger(__name__)

#: A body left unread up to this size is read away to keep the connection; above, it is closed.
_SKIPPED_BYTES = 64 * 1024

#: What is read away before a connection is closed. Closing with bytes unread resets it (RFC 9112,
#: 9.6), and the sender of a body that is too large would never see the answer that says so.
_LINGER_BYTES = 64 * 1024 * 1024

_CHUNK_BYTES = 64 * 1024

#: Longest request line, as http.server has it.
_LINE_BYTES = 65_536


class _Patience(io.RawIOBase):
    """What comes from a socket, until the time for it is over, however it drips."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._deadline = 0.0

    def begin(self, seconds: float) -> None:
        """Wait so long from now on, for all that is to come."""
        self._deadline = SYSTEM_CLOCK.monotonic() + seconds

    def readable(self) -> bool:
        """Tell BufferedReader that this can be read."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read what has come, or wait for it.

        Raises:
            TimeoutError: the time is over.
        """
        left = self._deadline - SYSTEM_CLOCK.monotonic()
        if left <= 0:
            raise TimeoutError("the request takes too long")
        usual = self._connection.gettimeout()  # which answers are sent with
        self._connection.settimeout(left)
        try:
            return self._connection.recv_into(buffer)
        finally:
            self._connection.settimeout(usual)


class _Body:
    """The body of one request, as the application sees it: ends where Content-Length says."""

    def __init__(self, stream: io.BufferedIOBase, length: int) -> None:
        self._stream = stream
        self.left = length

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes, fewer when no more have come yet.

        Raises:
            TimeoutError: the whole body took longer than the timeout, however it dripped.
            ConnectionAbortedError: the sender is gone, so nobody waits for an answer.
        """
        wanted = self.left if size < 0 else min(size, self.left)
        if not wanted:
            return b""
        data = self._stream.read1(wanted)
        if not data:
            raise ConnectionAbortedError("the sender went away in the middle of a body")
        self.left -= len(data)
        return data

    def skip(self) -> None:
        """Read away what is left, within bounds."""
        bound = _LINGER_BYTES
        while self.left and bound > 0:
            bound -= len(self.read(_CHUNK_BYTES))


class _Response(ServerHandler):
    """Runs the application for one request and sends its answer in one piece."""

    http_version = "1.1"
    server_software = f"guardagent-collector/{__version__}"
    request_handler: Connection
    headers: Headers | None

    def __init__(self, connection: Connection, body: _Body) -> None:
        super().__init__(
            cast("IO[bytes]", body),  # of a file, the collector needs the reading only
            cast("IO[bytes]", connection.wfile),
            io.StringIO(),
            connection.get_environ(),
            multithread=True,
            multiprocess=False,
        )
        # wsgiref would lay the process's environment under the request's, HTTP_PROXY and all.
        self.os_environ = {}
        self.request_handler = connection
        self._body = body
        self._unsent = bytearray()

    def cleanup_headers(self) -> None:
        """Say so when the connection ends with this answer."""
        super().cleanup_headers()
        connection = self.request_handler
        if self._body.left > _SKIPPED_BYTES or connection.stopping.is_set():
            connection.close_connection = True
        if connection.close_connection and self.headers is not None:
            self.headers["Connection"] = "close"

    def finish_content(self) -> None:
        """Send an answer that has no body, too."""
        super().finish_content()
        self._flush()

    def log_exception(self, exc_info: _ExcInfo) -> None:
        """Log what the application raised, instead of printing it."""
        _log.error("The application failed.", exc_info=exc_info)
        self.request_handler.close_connection = True

    def _write(self, data: bytes) -> None:
        self._unsent += data

    def _flush(self) -> None:
        data, self._unsent = bytes(self._unsent), bytearray()
        self.request_handler.wfile.write(data)


class Connection(WSGIRequestHandler):
    """Serves one connection until either side has enough.

    The server makes a subclass that holds its settings: `timeout` bounds the head of a request as
    a whole, and its body, `idle_timeout` the pause between requests, and `stopping` ends it all.
    """

    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.1"  # what is no HTTP gets a status line too
    disable_nagle_algorithm = True  # an answer is one write; nothing follows that could join it
    timeout = 10.0
    idle_timeout = 75.0
    stopping: ClassVar[threading.Event]

    def setup(self) -> None:
        """Read through our own patience in place of socketserver's stream."""
        super().setup()
        self.rfile.close()
        self._patience = _Patience(self.connection)
        self.rfile = self._buffer = io.BufferedReader(self._patience, _CHUNK_BYTES)

    def handle(self) -> None:
        """Answer requests until the connection ends."""
        self.close_connection = False
        try:
            while not self.close_connection and not self.stopping.is_set():
                self.handle_one_request()
        except OSError as error:
            # A timeout or a reset: usual, and nobody is left to tell.
            _log.debug("A connection ended: %s.", error)

    def handle_one_request(self) -> None:
        """Read one request and answer it."""
        if not self._read_head():
            self.close_connection = True
            return
        length = self._body_length()
        if self.request_version != "HTTP/1.1" or length is None:
            self.close_connection = True  # where the next request begins cannot be known
        body = _Body(self.rfile, _LINGER_BYTES if length is None else length)
        self._patience.begin(self.timeout)
        _Response(self, body).run(self.server.get_app())  # type: ignore[attr-defined]
        self._patience.begin(self.timeout)
        body.skip()

    def log_message(self, *message: Any) -> None:
        """Log at debug level instead of on stderr."""
        _log.debug(*message)

    def _read_head(self) -> bool:
        self._patience.begin(self.idle_timeout)
        self._buffer.peek(1)
        self._patience.begin(self.timeout)
        self.raw_requestline = self.rfile.readline(_LINE_BYTES + 1)
        if len(self.raw_requestline) > _LINE_BYTES:
            self.requestline = self.request_version = self.command = ""
            self.send_error(414)
            return False
        return bool(self.raw_requestline) and self.parse_request()

    def _body_length(self) -> int | None:
        """Return the length of the body, None when it cannot be told, which the app refuses."""
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isdecimal() or len(length) > 19:
            return None
        return int(length)
