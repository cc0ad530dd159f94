"""What each answer of the backend means (DESIGN.md 6). Pure."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

import attrs

from guardagent.errors import RejectedError, SetupError, TooLargeError, TransientError
from guardagent.transport.protocol import Receipt
from guardagent.transport.retry import parse_retry_after

__all__ = ["ANSWER_BYTES", "Answer", "inflate", "judge"]

#: Bytes read of an answer, and inflated of a compressed one.
ANSWER_BYTES = 64 * 1024
_REASON_KEPT = 200
#: Words of failure in an answer that was too long to be read whole, or is not JSON.
_FAILURE = re.compile(
    rb'"success"\s{0,9}:\s{0,9}false|"(?:rejected|errors)"\s{0,9}:\s{0,9}\[\s{0,9}[^\]\s]'
)
_KEY = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@attrs.frozen
class Answer:
    """An HTTP answer within its bounds.

    Args:
        headers: case-insensitive.
        body: as read, bounded, inflated.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


def inflate(body: bytes, encoding: str | None, max_bytes: int = ANSWER_BYTES) -> bytes:
    """Undo a content encoding up to `max_bytes`; what cannot be read counts as empty."""
    if (encoding or "identity").strip().lower() in ("", "identity"):
        return body
    try:
        # 32: zlib and gzip headers alike. We asked for neither; the bound is for hostile peers.
        return zlib.decompressobj(32 + zlib.MAX_WBITS).decompress(body, max_bytes)
    except zlib.error:
        return b""


def judge(answer: Answer, *, bytes_sent: int, now: float) -> Receipt:
    """Return the acceptance, or raise what the answer says instead.

    Args:
        answer: to a POST of a batch.
        bytes_sent: for the receipt.
        now: unix seconds, for a Retry-After date.

    Raises:
        TransientError: 408, 429 and 5xx.
        TooLargeError: 413.
        RejectedError: any other 4xx; not final for a 2xx whose body says it failed.
        SetupError: 401, 403, 407 and every redirect.
    """
    status, headers, body = answer.status, answer.headers, answer.body
    if 200 <= status < 300:
        document = _document(body)
        if document is None and _FAILURE.search(body):
            summary = f"HTTP {status} with a broken body that speaks of a failure"
            raise RejectedError(summary, status=status, final=False)
        return _accepted(status, document, bytes_sent)
    if status in (408, 429) or status >= 500:
        raise TransientError(
            f"HTTP {status}",
            status=status,
            outage=status >= 500,
            retry_after=parse_retry_after(headers.get("Retry-After"), now),
        )
    if status == 413:
        raise TooLargeError("HTTP 413: too large", status=status)
    if status in (401, 403, 407):
        summary = f"HTTP {status}: the key is refused"
        raise SetupError(summary + _reason(body), status=status, summary=summary)
    if 300 <= status < 400:
        raise SetupError(f"HTTP {status}: redirects are not followed; set endpoint", status=status)
    raise RejectedError(
        f"HTTP {status}{_reason(body)}", status=status, summary=f"HTTP {status}: refused"
    )


def _accepted(status: int, document: Any, bytes_sent: int) -> Receipt:
    if not isinstance(document, dict):
        return Receipt(bytes_sent)
    rejected = _rejected(document.get("rejected")) or _rejected(document.get("errors"))
    failed = document.get("success") is False or bool(document.get("errors"))
    if rejected:
        return Receipt(bytes_sent, rejected, is_doubtful=failed)
    if failed:
        reason = _reason(json.dumps(document).encode())
        summary = f"HTTP {status}, but not successful"
        raise RejectedError(summary + reason, status=status, summary=summary, final=False)
    return Receipt(bytes_sent)


def _rejected(entries: Any) -> dict[str, str]:
    """Read which keys were refused; empty unless every entry names its key."""
    if not isinstance(entries, list):
        return {}
    if all(isinstance(entry, str) and _KEY.fullmatch(entry) for entry in entries):
        return dict.fromkeys(entries, "")
    if not all(isinstance(entry, dict) and entry.get("idempotency_key") for entry in entries):
        return {}
    return {str(entry["idempotency_key"]): _short(entry.get("reason", "")) for entry in entries}


def _document(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _reason(body: bytes) -> str:
    """Return what a JSON answer gives as reason, in short; nothing of an HTML page."""
    document = _document(body)
    if not isinstance(document, dict):
        return ""
    for name in ("errors", "error", "detail", "message", "reason"):
        if document.get(name):
            return ": " + _short(document[name])
    return ""


def _short(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = "; ".join(value)
    text = value if isinstance(value, str) else json.dumps(value)
    return "".join(char if char.isprintable() else " " for char in text[:_REASON_KEPT])
