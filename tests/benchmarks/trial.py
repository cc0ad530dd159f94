"""One measured run, in a process that does nothing else: measure, subject, port, scale."""

from __future__ import annotations

import json
import os
import sys

from .measures import MEASURES
from .registry import subject_class
from .subjects.subject import NotApplicableError

__all__ = ["main"]


def main(measure: str, subject: str, port: int, scale: float) -> None:
    """Print the figures as JSON, then leave without waiting for any thread."""
    answer: dict[str, object]
    try:
        answer = {"figures": MEASURES[measure](subject_class(subject)(), port, scale)}
    except NotApplicableError as reason:
        answer = {"reason": str(reason)}
    print(json.dumps(answer), flush=True)
    # Some subjects hold events for a backend that is away: their exit would wait for it.
    os._exit(0)


if __name__ == "__main__":
    if os.environ.get("BENCHMARKS_WITHOUT_ORJSON"):
        sys.modules["orjson"] = None  # type: ignore[assignment]
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
