"""What the backend does with a request: each answer is a value, and `play` does it.

An answer that a correct client may take for acceptance enters the keys into the ledger, before the
client can see it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Protocol

import attrs

from tests.support.wire import PATIENCE, Exchange

__all__ = [
    "Accept",
    "Answer",
    "BrokenJson",
    "CloseIdle",
    "Held",
    "Redirect",
    "RefuseKeys",
    "RefuseOver",
    "RequireKey",
    "Status",
]

_JSON = {"Content-Type": "application/json"}


class Answer(Protocol):
    """Something to do with a request."""

    def play(self, exchange: Exchange) -> None:
        """Answer, or fail to; closing the wire ends the connection."""
        ...


@attrs.frozen
class Accept:
    """Accept the batch."""

    def play(self, exchange: Exchange) -> None:
        exchange.accept()
        body = {"success": True, "accepted": len(exchange.request.keys)}
        exchange.answer(200, json.dumps(body).encode(), _JSON)


@attrs.frozen
class Status:
    """Answer with a status.

    Args:
        accepts: whether it means acceptance; None for what the code says.
    """

    code: int
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = b""
    accepts: bool | None = None

    def play(self, exchange: Exchange) -> None:
        if self.accepts if self.accepts is not None else 200 <= self.code < 300:
            exchange.accept()
        exchange.answer(self.code, self.body, self.headers)


@attrs.frozen
class Redirect:
    """Send the client elsewhere."""

    location: str
    code: int = 301

    def play(self, exchange: Exchange) -> None:
        exchange.answer(self.code, b"moved", {"Location": self.location})


@attrs.frozen
class BrokenJson:
    """Accept, and say so in JSON that stops halfway."""

    def play(self, exchange: Exchange) -> None:
        exchange.accept()
        exchange.answer(200, b'{"success": tr', _JSON)


@attrs.frozen
class CloseIdle:
    """Accept, then close the kept-alive connection without having announced it."""

    def play(self, exchange: Exchange) -> None:
        Accept().play(exchange)
        exchange.wire.close()


@attrs.frozen
class RefuseOver:
    """Refuse (413) requests with a body, as the client meant it, of more than `limit` bytes."""

    limit: int

    def play(self, exchange: Exchange) -> None:
        if len(exchange.request.body) > self.limit:
            exchange.answer(413, b"too large")
        else:
            Accept().play(exchange)


@attrs.frozen
class RefuseKeys:
    """Accept the batch except for its first `count` records, named as rejected."""

    count: int = 1

    def play(self, exchange: Exchange) -> None:
        refused = exchange.request.keys[: self.count]
        exchange.ledger.accept(exchange.request, but=refused)
        rejected = [{"idempotency_key": key, "reason": "scripted"} for key in refused]
        body = {"success": True, "rejected": rejected}
        exchange.answer(200, json.dumps(body).encode(), _JSON)


@attrs.frozen
class RequireKey:
    """Accept those who bring this API key, refuse (401) the others."""

    api_key: str

    def play(self, exchange: Exchange) -> None:
        if exchange.request.headers.get("x-api-key") == self.api_key:
            Accept().play(exchange)
        else:
            exchange.answer(401, b'{"detail": "key unknown"}', _JSON)


@attrs.frozen(eq=False)
class Held:
    """Keep the client waiting until the test lets go, then do what `then` says."""

    then: Answer = attrs.field(factory=Accept)
    _gate: threading.Event = attrs.field(factory=threading.Event, init=False)

    def let_go(self) -> None:
        """Let every request that waits, and every later one, pass."""
        self._gate.set()

    def play(self, exchange: Exchange) -> None:
        self._gate.wait(PATIENCE)
        self.then.play(exchange)
