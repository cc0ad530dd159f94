"""What a backend was sent, and which idempotency keys it accepted."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import attrs

from tests.support import strict

__all__ = ["Ledger", "Request"]


@attrs.frozen(eq=False)
class Request:
    """One request as it came over the wire.

    Args:
        target: the request's target as it was sent; absolute when the client took us for a proxy.
        headers: names in lower case.
        raw: the body before any decoding.
        peer_port: the client's port.
        connection: serial number of the connection within one backend, from 1.
        at: when it had been read, on the monotonic clock.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    raw: bytes
    peer_port: int
    connection: int
    at: float = attrs.field(factory=time.monotonic)

    @property
    def path(self) -> str:
        """The path, without scheme and host where the target is absolute."""
        if "://" not in self.target:
            return self.target
        return "/" + self.target.split("://", 1)[1].partition("/")[2]

    @property
    def body(self) -> bytes:
        """The body as the client meant it, after `Content-Encoding`."""
        if self.headers.get("content-encoding", "").lower() == "gzip":
            return zlib.decompress(self.raw, wbits=31)
        return self.raw

    @property
    def document(self) -> Any:
        """The body read by a strict JSON parser.

        Raises:
            ValueError: it is not JSON.
        """
        return strict.loads(self.body)

    @property
    def records(self) -> list[dict[str, Any]]:
        """The events and metrics of a batch."""
        document = self.document
        if not isinstance(document, dict):
            return []
        return [*document.get("events", ()), *document.get("metrics", ())]

    @property
    def keys(self) -> list[str]:
        """The idempotency keys of a batch, in its order."""
        return [record["idempotency_key"] for record in self.records]

    @property
    def is_delivery(self) -> bool:
        """Whether it brings events or metrics."""
        return self.method == "POST" and self.path.partition("/api/v1/")[2] in (
            "events",
            "metrics",
            "events/encrypted",
        )


class Ledger:
    """Collects requests and accepted keys; safe for any number of connections and readers."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards all below
        self._requests: list[Request] = []
        self._received: list[str] = []
        self._unreadable: list[str] = []

    def record(self, request: Request) -> None:
        """Note that a request arrived, whatever will be answered."""
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()

    def accept(self, request: Request, *, but: Collection[str] = ()) -> None:
        """Take a batch's keys into the books, those in `but` excepted."""
        keys = [key for key in request.keys if key not in but]
        with self._changed:
            self._received += keys
            self._changed.notify_all()

    def complain(self, complaint: str) -> None:
        """Note what no client should ever send."""
        with self._changed:
            self._unreadable.append(complaint)
            self._changed.notify_all()

    @property
    def requests(self) -> list[Request]:
        """Every request so far, in the order of arrival."""
        with self._changed:
            return list(self._requests)

    @property
    def received(self) -> list[str]:
        """Every accepted key so far, repeats included."""
        with self._changed:
            return list(self._received)

    @property
    def unreadable(self) -> list[str]:
        """Bodies that no strict reader takes, and requests that are not HTTP."""
        with self._changed:
            return list(self._unreadable)

    def wait(self, met: Callable[[], bool], timeout: float) -> bool:
        """Wait until `met()`, which may read this ledger; False when it did not happen in time."""
        with self._changed:
            return self._changed.wait_for(met, timeout)
