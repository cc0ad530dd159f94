"""Bodies an agent would send, and a client that keeps its connection."""

from __future__ import annotations

import http.client
import json
import socket
import uuid
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from guardagent.collector import CollectorServer

__all__ = ["Client", "Reply", "batch", "connect", "event", "metric", "read_all", "status"]


def event(**fields: Any) -> dict[str, Any]:
    """Return an event with every key of the wire."""
    return {
        "idempotency_key": str(uuid.uuid4()),
        "timestamp": "2026-11-22T17:10:38.828369+00:00",
        "event_type": "ip_banned",
        "ip_address": "203.0.113.7",
        "country": None,
        "user_agent": "curl/8.5.0",
        "action_taken": "banned",
        "reason": "too many failures",
        "endpoint": "/login",
        "method": "POST",
        "status_code": 403,
        "response_time": 0.012,
        "decorator_type": None,
        "rule_type": None,
        "pattern_matched": None,
        "handler_name": None,
        "metadata": {"attempts": 7},
        **fields,
    }


def metric(**fields: Any) -> dict[str, Any]:
    """Return a metric with every key of the wire, and no key of its own."""
    return {
        "timestamp": "2026-11-22T17:10:38.828369+00:00",
        "metric_type": "response_time",
        "value": 0.012,
        "endpoint": None,
        "tags": {"endpoint": "/login"},
        **fields,
    }


def batch(
    *, events: list[Any] | None = None, metrics: list[Any] | None = None, **fields: Any
) -> dict[str, Any]:
    """Return a batch with every key of the wire."""
    return {
        "project_id": "shop",
        "events": events or [],
        "metrics": metrics or [],
        "batch_id": "1795367438828-0a1b2c3d",
        "created_at": "2026-11-22T17:10:39.000001+00:00",
        "compressed": False,
        "agent_version": "0.1.0",
        "guard_version": None,
        "guard_core_version": None,
        **fields,
    }


def status(**fields: Any) -> dict[str, Any]:
    """Return a status report with every key of the wire."""
    return {
        "timestamp": "2026-11-22T17:10:38.828369+00:00",
        "status": "healthy",
        "uptime": 61.5,
        "events_sent": 12,
        "events_failed": 0,
        "buffer_size": 3,
        "last_flush": None,
        "errors": [],
        **fields,
    }


@attrs.frozen
class Reply:
    """An answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def errors(self) -> list[str]:
        """The reasons of a refusal."""
        document = self.document

        assert document["success"] is False
        assert self.headers["content-type"] == "application/json"
        return list(document["errors"])


class Client:
    """One connection to a collector."""

    def __init__(self, server: CollectorServer, *, timeout: float = 10.0) -> None:
        self._connection = http.client.HTTPConnection(server.host, server.port, timeout=timeout)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()

    @property
    def local_port(self) -> int | None:
        """Our end's port, None while not connected: tells one connection from another."""
        sock = self._connection.sock
        return None if sock is None else int(sock.getsockname()[1])

    def get(self, path: str, **headers: str) -> Reply:
        """Send a GET; `_` in a header's name stands for `-`."""
        return self.request("GET", path, None, **headers)

    def post(self, path: str, body: Any, **headers: str) -> Reply:
        """Send a POST of bytes, or of a value as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request("POST", path, data, **headers)

    def request(self, method: str, path: str, body: bytes | None, **headers: str) -> Reply:
        """Send any request."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(method, path, body, named)
        response = self._connection.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, fields, response.read())


def connect(server: CollectorServer) -> socket.socket:
    """Open a bare connection."""
    return socket.create_connection((server.host, server.port), timeout=10.0)


def read_all(sock: socket.socket) -> bytes:
    """Read until the server closes."""
    return b"".join(iter(lambda: sock.recv(65_536), b""))
