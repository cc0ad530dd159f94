"""The command: ``python -m tests.benchmarks``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .measures import MEASURES
from .registry import NAMES, is_installed
from .report import report
from .runner import Plan, run
from .server import running_redis
from .sink import running_sink

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

ALL_MEASURES = (*MEASURES, "import")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the trials asked for, print the tables, and write them as RST on request."""
    options = _options(arguments)
    plan = Plan(
        measures=_chosen(options.measures, ALL_MEASURES),
        subjects=_chosen(options.only, NAMES),
        rounds=options.rounds or (1 if options.quick else 5),
        scale=0.01 if options.quick else 1.0,
        has_orjson=is_installed("orjson") and not options.without_orjson,
    )
    with running_sink() as port, running_redis(plan.subjects):
        results = run(plan, port, lambda line: print(line, file=sys.stderr, flush=True))
    tables = report(results, plan)
    print(tables)
    if options.rst:
        options.rst.write_text(tables, encoding="utf-8")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, help="how often each trial runs (5; quick: 1)")
    parser.add_argument("--quick", action="store_true", help="a hundredth of the events")
    parser.add_argument("--only", default="", help="subjects, by commas: " + ", ".join(NAMES))
    parser.add_argument(
        "--measures", default="", help="measures, by commas: " + ", ".join(ALL_MEASURES)
    )
    parser.add_argument("--without-orjson", action="store_true", help="hide orjson from all")
    parser.add_argument("--rst", type=Path, help="write the tables there too, for the docs")
    return parser.parse_args(arguments)


def _chosen(asked: str, known: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(filter(None, asked.split(",")))
    if unknown := set(names) - set(known):
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    return names or known


if __name__ == "__main__":
    main()
