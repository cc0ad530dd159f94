"""A record of a spool as a line of JSON, whatever is in it. Pure."""

from __future__ import annotations

import base64
import json
import math
from typing import TYPE_CHECKING, Any

from guardagent.errors import FrameError
from guardagent.spool.frame import made_at, unpack

if TYPE_CHECKING:
    from guardagent.spool.store import DeadLetter, Id

__all__ = ["body_text", "dead_line", "id_text", "waiting_line"]


def waiting_line(kind: str, id_: Id, frame: bytes) -> str:
    """Return the line of a record that waits or is being sent."""
    return _line({"state": "waiting", "kind": kind, "id": id_text(id_)}, frame)


def dead_line(letter: DeadLetter, *, body: bool = True) -> str:
    """Return the line of a dead letter, with or without what it says."""
    known = {
        "state": "dead",
        "kind": letter.kind,
        "id": id_text(letter.id),
        "reason": letter.reason,
        "buried_at": round(letter.buried_at, 3),
    }
    return _line(known, letter.frame if body else None)


def id_text(id_: Id) -> str:
    """Return an id as operators see it and type it."""
    if isinstance(id_, bytes):
        return id_.decode("ascii", "replace")
    if isinstance(id_, tuple):
        return "-".join(str(part) for part in id_)
    return str(id_)


def body_text(frame: bytes) -> str:
    """Return the JSON of a record, or base64 of what is none; printable ASCII in either case."""
    (content,) = _content(frame).values()
    return _json(content)


def _line(known: dict[str, Any], frame: bytes | None) -> str:
    if frame is None:
        return _json(known)
    moment = made_at(frame)
    made = round(moment, 3) if math.isfinite(moment) else None
    return _json({**known, "made_at": made, **_content(frame)})


def _content(frame: bytes) -> dict[str, Any]:
    """Return the record, or the whole frame in base64 when it cannot be read."""
    try:
        record = json.loads(unpack(frame), parse_constant=_refuse)
        _json(record)  # a number beyond all bounds can be read, but is not JSON when it is written
    except (FrameError, ValueError, RecursionError):
        return {"frame": base64.b64encode(frame).decode("ascii")}
    return {"record": record}


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _json(value: Any) -> str:
    # Every character beyond printable ASCII is escaped: the line may be read in a terminal.
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
