"""Showing what arrives."""

from __future__ import annotations

import io
import json
import time

import pytest
from rich.console import Console
from rich.text import Text

from guardagent.cli.views import Lines, LiveTable, json_line, plain_line
from tests.cli.arrivals import arrival, refusal, report


class _Clock:
    """Time that moves when it is told to."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> float:
        return self.seconds


@pytest.fixture
def stream() -> io.StringIO:
    """Where a view writes to."""
    return io.StringIO()


def _table(stream: io.StringIO, clock: _Clock) -> LiveTable:
    console = Console(file=stream, force_terminal=True, width=100, legacy_windows=False)
    return LiveTable(console, title="The collector", clock=clock)


def test_json_lines_hold_everything(stream: io.StringIO) -> None:
    """Each arrival is one line, with its body as JSON and not as text."""
    arrivals = [arrival("a"), refusal("X-API-Key: missing")]

    with Lines(stream, json_line) as view:
        view.show(arrivals, 0)

    lines = stream.getvalue().splitlines()
    assert [json.loads(line) for line in lines] == [one.as_mapping() for one in arrivals]


def test_plain_lines_are_short(stream: io.StringIO) -> None:
    """Each arrival is one readable line, whatever its sender made of it."""
    at = time.strftime("%H:%M:%S", time.localtime(1_000.0))

    with Lines(stream, plain_line) as view:
        view.show([arrival("a\nb"), refusal("X-API-Key: missing")], 0)
        view.show([report("degraded", dropped={"overflow": 2, "expired": 0, "rejected": 1})], 0)
        view.show([], 0)

    assert stream.getvalue().splitlines() == [
        f"{at} event a\ufffdb shop host-1",
        f"{at} refused 401 POST /api/v1/events: X-API-Key: missing",
        f"{at} status degraded shop host-1 pending 3 lost overflow 2, rejected 1",
    ]


def test_an_agent_may_say_little(stream: io.StringIO) -> None:
    """A report of guard-agent's has a row too."""
    with _table(stream, _Clock()) as view:
        view.show([report(events_failed=4)], 0)

    cells = _last_row(stream, "", of=8)
    assert cells == ["host-1", "", "healthy", "4", "3", "12", "none", "now"]


def test_the_agents_have_a_table(stream: io.StringIO) -> None:
    """A row for each process that reported, with its losses in all, and none before."""
    clock = _Clock()
    with _table(stream, clock) as view:
        view.show([arrival("a")], 0)
        before = stream.getvalue()
        process = {"hostname": "web", "pid": 7, "rules_version": 4, "rules_stale": True}
        view.show([report(dropped={"overflow": 2}, **process)], 0)
        clock.seconds = 1_005.0
        view.show([report("degraded", dropped={"overflow": 3}, **process)], 0)

    assert "by their status reports" not in before
    assert "by their status reports" in stream.getvalue()
    cells = _last_row(stream, "web:7", of=8)
    assert cells == ["host-1", "web:7", "degraded", "overflow 5", "3", "12", "v4, stale", "5 s ago"]


def test_the_table_shows_types_and_senders(stream: io.StringIO) -> None:
    """A row has the kind, the type, its count and rate, when it was seen last and the senders."""
    clock = _Clock()
    with _table(stream, clock) as view:
        clock.seconds = 1_003.0
        view.show([arrival("[bold]a"), arrival("[bold]a", agent="host-2")], 0)

    cells = [cell.strip() for cell in _last_row(stream, "[bold]a")]
    assert cells == ["event", "[bold]a", "2", "0.2", "3 s ago", "2"]


def test_the_caption_tells_what_the_rows_do_not(stream: io.StringIO) -> None:
    """Refusals with their reason, and what came again, stand below the table."""
    with _table(stream, _Clock()) as view:
        view.show([refusal("X-API-Key: missing")], 7)

    text = stream.getvalue()
    assert "Last refused: POST /api/v1/events: X-API-Key: missing" in text
    assert "7 came again and were recognised by their keys." in text
    assert "Ctrl-C ends it." in text


def test_the_table_is_not_drawn_for_every_arrival(stream: io.StringIO) -> None:
    """A thousand arrivals in a moment are drawn once, and once more at the end."""
    clock = _Clock()
    with _table(stream, clock) as view:
        view.show([], 0)
        before = stream.getvalue().count("The collector")
        for _ in range(1_000):
            view.show([arrival()], 0)
        at_once = stream.getvalue().count("The collector")
        clock.seconds += 0.25
        view.show([], 0)
        later = stream.getvalue().count("The collector")

    assert at_once == before
    assert later == before + 1
    assert "1000" in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.5, "now"), (119.9, "119 s ago"), (120.0, "2 min ago")]
)
def test_the_age_is_told_in_words(stream: io.StringIO, seconds: float, shown: str) -> None:
    """When something was seen last is told in seconds, then in minutes."""
    clock = _Clock()
    with _table(stream, clock) as view:
        view.show([arrival("a")], 0)
        clock.seconds += seconds

    assert _last_row(stream, "a")[4].strip() == shown


def _last_row(stream: io.StringIO, name: str, *, of: int = 6) -> list[str]:
    """Return the cells of the last drawn row of that name, without colours."""
    rows = []
    for line in stream.getvalue().split("\n"):
        parts = [part.strip() for part in Text.from_ansi(line).plain.split("│")[1:-1]]
        if len(parts) == of and parts[1] == name:
            rows.append(parts)
    return rows[-1]
