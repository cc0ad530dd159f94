"""A real HTTP/1.1 server on loopback that misbehaves on command and keeps a ledger."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType

from tests.support.answers import Accept, Answer, Status
from tests.support.ledger import Ledger, Request
from tests.support.wire import PATIENCE, Exchange, Wire

__all__ = ["Backend"]

_SUCCESS = Status(200, {"Content-Type": "application/json"}, b'{"success": true}')
_NO_RULES = Status(200, {"Content-Type": "application/json"}, b"{}")


class Backend:
    """Listens while it is entered; every thread and socket is gone after the exit.

    Deliveries are answered from the script, one answer each, and by `default` when it is used up.
    Rules and status have scripts of their own and are recorded apart.

    Args:
        tls: a server-side context; None for plain HTTP.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.default: Answer = Accept()
        self.default_rules: Answer = _NO_RULES
        self.default_status: Answer = _SUCCESS
        self._tls = tls
        self._ledger = Ledger()
        self._lock = threading.Lock()  # guards the scripts, _wires, _threads and _serial
        self._scripts: dict[str, deque[Answer]] = {"": deque(), "rules": deque(), "status": deque()}
        self._wires: set[Wire] = set()
        self._threads: set[threading.Thread] = set()
        self._serial = 0
        self._port = 0
        self._reserved: socket.socket | None = None
        self._listener: _Listener | None = None

    def __enter__(self) -> Backend:
        self.up()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None

    @property
    def port(self) -> int:
        """The port; the same for the whole life of this object."""
        return self._port

    @property
    def url(self) -> str:
        """The base URL, as an agent's `endpoint`."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    # -- what it shall do ------------------------------------------------------------------------

    def script(self, *answers: Answer) -> None:
        """Queue answers for the next deliveries."""
        self._extend("", answers)

    def script_rules(self, *answers: Answer) -> None:
        """Queue answers for the next polls of the rules."""
        self._extend("rules", answers)

    def script_status(self, *answers: Answer) -> None:
        """Queue answers for the next status reports."""
        self._extend("status", answers)

    def up(self) -> None:
        """Listen on the port, the same one as before."""
        sock = self._reserved or _bound(0)
        self._reserved = None
        self._port = sock.getsockname()[1]
        self._listener = _Listener(sock, self._welcome)

    def down(self) -> None:
        """Close the listening socket and every connection; who connects now is refused."""
        if self._listener is None:
            return
        self._listener.close()
        self._listener = None
        with self._lock:
            wires, threads = list(self._wires), list(self._threads)
        for wire in wires:
            wire.stop()
        for thread in threads:
            thread.join(PATIENCE)
        # Bound but not listening: connections are refused, and nobody else gets the port.
        self._reserved = _bound(self._port)

    # -- what it saw -----------------------------------------------------------------------------

    @property
    def requests(self) -> list[Request]:
        """The deliveries so far, accepted or not."""
        return [request for request in self._ledger.requests if request.is_delivery]

    @property
    def rules_requests(self) -> list[Request]:
        """The polls of the rules so far."""
        return [request for request in self._ledger.requests if _kind(request) == "rules"]

    @property
    def status_requests(self) -> list[Request]:
        """The status reports so far."""
        return [request for request in self._ledger.requests if _kind(request) == "status"]

    @property
    def all_requests(self) -> list[Request]:
        """Everything so far."""
        return self._ledger.requests

    @property
    def received(self) -> list[str]:
        """The idempotency keys of accepted records in the order of arrival, repeats included."""
        return self._ledger.received

    @property
    def keys(self) -> set[str]:
        """The idempotency keys of accepted records."""
        return set(self._ledger.received)

    @property
    def unreadable(self) -> list[str]:
        """What came in that no strict server takes."""
        return self._ledger.unreadable

    @property
    def connections(self) -> int:
        """How many connections were ever accepted."""
        with self._lock:
            return self._serial

    def wait_for(self, count: int, timeout: float = 10.0) -> bool:
        """Wait until `count` different keys were accepted; False when that took too long."""
        return self._ledger.wait(lambda: len(self.keys) >= count, timeout)

    def wait_for_requests(self, count: int, timeout: float = 10.0) -> bool:
        """Wait until `count` deliveries arrived, whatever was answered."""
        return self._ledger.wait(lambda: len(self.requests) >= count, timeout)

    # -- how -------------------------------------------------------------------------------------

    def _extend(self, kind: str, answers: tuple[Answer, ...]) -> None:
        with self._lock:
            self._scripts[kind].extend(answers)

    def _welcome(self, sock: socket.socket) -> None:
        with self._lock:
            self._serial += 1
            serial = self._serial
        try:
            wire = Wire(sock, serial)
        except OSError:  # gone before it was greeted
            sock.close()
            return
        thread = threading.Thread(target=self._serve, args=(wire,), name=f"backend-wire-{serial}")
        with self._lock:
            self._wires.add(wire)
            self._threads.add(thread)
        thread.start()

    def _serve(self, wire: Wire) -> None:
        try:
            # The client may leave at any moment; the ledger is how that is judged, not this thread.
            with contextlib.suppress(OSError):
                if self._tls is not None:
                    wire.wrap(self._tls)
                while (request := wire.read_request()) is not None:
                    self._answer(Exchange(request, wire, self._ledger))
        except ValueError as error:
            self._ledger.complain(str(error))
        finally:
            wire.close()
            with self._lock:
                self._wires.discard(wire)
                self._threads.discard(threading.current_thread())

    def _answer(self, exchange: Exchange) -> None:
        request = exchange.request
        kind = _kind(request)
        complaint = _complaint(request) if request.method == "POST" else None
        if complaint is not None:
            self._ledger.complain(complaint)
        self._ledger.record(request)
        if kind is None:
            exchange.answer(404, b"no such page")
        elif complaint is not None:
            exchange.answer(400, complaint.encode())
        else:
            self._next_answer(kind).play(exchange)

    def _next_answer(self, kind: str) -> Answer:
        defaults = {"": self.default, "rules": self.default_rules, "status": self.default_status}
        with self._lock:
            script = self._scripts[kind]
            return script.popleft() if script else defaults[kind]


class _Listener:
    """The thread that accepts connections."""

    def __init__(self, sock: socket.socket, welcome: Callable[[socket.socket], None]) -> None:
        self._sock = sock
        self._welcome = welcome
        self._bell, self._clapper = socket.socketpair()
        sock.listen(128)
        port = sock.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name=f"backend-listener-{port}")
        self._thread.start()

    def close(self) -> None:
        self._clapper.send(b"x")
        self._thread.join(PATIENCE)
        for sock in (self._sock, self._bell, self._clapper):
            sock.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._sock, selectors.EVENT_READ)
            selector.register(self._bell, selectors.EVENT_READ)
            while all(key.fileobj is not self._bell for key, _ in selector.select()):
                sock, _ = self._sock.accept()
                self._welcome(sock)


def _kind(request: Request) -> str | None:
    if request.is_delivery:
        return ""
    resource = request.path.partition("/api/v1/")[2]
    known = {("GET", "rules"): "rules", ("POST", "status"): "status"}
    return known.get((request.method, resource))


def _complaint(request: Request) -> str | None:
    # Every body of every test goes through the strict parser here.
    try:
        request.keys  # noqa: B018
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the test shall hear of it
        return f"{error!r} in {request.raw[:2000]!r}"
    return None


def _bound(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock
