"""JSON as RFC 8259 has it: what Python's own reader lets through is refused."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

__all__ = ["loads"]


def loads(text: bytes) -> Any:
    """Parse a UTF-8 JSON text.

    Raises:
        ValueError: not UTF-8, not JSON, NaN or Infinity, a number beyond a double, a name given
            twice, or half of a surrogate pair.
    """
    document = json.loads(
        text.decode("utf-8"),
        parse_constant=_refuse_constant,
        parse_float=_finite,
        object_pairs_hook=_unique,
    )
    # A lone surrogate comes through the reader as a \u escape and cannot be written again.
    json.dumps(document, ensure_ascii=False).encode("utf-8")
    return document


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} does not fit a double")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError(f"a name is given twice among {[name for name, _ in pairs]}")
    return document
