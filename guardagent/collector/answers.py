"""What the collector says back: JSON answers that an agent acts on and a person understands."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Answer", "Refused", "accepted", "refusal", "told"]


@attrs.frozen
class Answer:
    """One HTTP answer: its status, headers of its own, and its body."""

    status: HTTPStatus
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    has_body: bool = True

    @property
    def status_line(self) -> str:
        """The status as WSGI wants it, "200 OK"."""
        return f"{self.status.value} {self.status.phrase}"

    def all_headers(self) -> list[tuple[str, str]]:
        """Return the headers to send; Content-Length keeps the connection usable afterwards."""
        kind = ("Content-Type", "application/json")
        return [kind, ("Content-Length", str(len(self.body))), *self.headers]


class Refused(Exception):  # noqa: N818 - it is an answer, not a failure
    """A request is answered with an error; carries the status, the reasons and any headers."""

    def __init__(
        self,
        status: HTTPStatus,
        errors: Sequence[str],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, errors, headers)
        self.status = status
        self.errors = list(errors)
        self.headers = tuple((headers or {}).items())


def accepted(count: int, duplicates: int) -> Answer:
    """Say that everything is kept: `count` new ones, `duplicates` known by their keys."""
    return told({"success": True, "accepted": count, "duplicates": duplicates})


def told(document: Mapping[str, Any], headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    """Answer with a JSON object."""
    return Answer(HTTPStatus.OK, json.dumps(document).encode(), headers)


def refusal(refused: Refused) -> Answer:
    """Say that nothing was kept, and why."""
    body = json.dumps({"success": False, "errors": refused.errors}).encode()
    return Answer(refused.status, body, refused.headers)
