"""Ways to show what arrives at a collector: a live table, plain lines, JSON lines."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Protocol, TextIO

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from guardagent._clock import SYSTEM_CLOCK, Clock
from guardagent.cli.tally import Tally, printable, refusal_text
from guardagent.collector.register import Register

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from rich.console import Console
    from typing_extensions import Self

    from guardagent.collector import Arrival
    from guardagent.collector.register import Row

__all__ = ["Lines", "LiveTable", "View", "json_line", "plain_line"]

_REFRESH_INTERVAL = 0.25
_ROWS = 40
_AGENTS = 20

_STYLES = {"event": "bold", "metric": "cyan", "status": "green", "refusal": "red"}
_STATUS_STYLES = {"healthy": "green", "degraded": "yellow", "failed": "red"}


class View(Protocol):
    """Shows arrivals while it is entered."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def show(self, arrivals: Sequence[Arrival], repeated: int) -> None:
        """Show these new arrivals, perhaps none; called some times a second.

        Args:
            arrivals: oldest first.
            repeated: how many came that were known already, all in all.
        """
        ...


class Lines:
    """Writes a line for each arrival.

    Args:
        form: makes a line of an arrival: `json_line` or `plain_line`.
    """

    def __init__(self, stream: TextIO, form: Callable[[Arrival], str]) -> None:
        self._stream = stream
        self._form = form

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def show(self, arrivals: Sequence[Arrival], repeated: int) -> None:
        """Write them at once: somebody may be reading through a pipe."""
        if arrivals:
            self._stream.write("".join(f"{self._form(arrival)}\n" for arrival in arrivals))
            self._stream.flush()


def json_line(arrival: Arrival) -> str:
    """Return everything about an arrival as a JSON object, its body included."""
    return json.dumps(arrival.as_mapping(), separators=(",", ":"))


def plain_line(arrival: Arrival) -> str:
    """Return a line to read."""
    clock = _clock_time(arrival.received_at)
    if arrival.kind == "refusal":
        return f"{clock} refused {arrival.type} {refusal_text(arrival)}"
    sender = printable(" ".join(filter(None, (arrival.project_id, arrival.agent))))
    line = f"{clock} {arrival.kind} {printable(arrival.type)} {sender}".rstrip()
    return f"{line} {_status_text(arrival)}" if arrival.kind == "status" else line


def _status_text(arrival: Arrival) -> str:
    """Say of one report what waits and what was lost since the one before."""
    register = Register()
    register.add([arrival])
    (row,) = register.rows()
    return printable(f"pending {row.pending} lost {row.loss_account}")


class LiveTable:
    """Keeps a table of types, counts, rates and senders on the terminal, and one of the agents.

    Args:
        title: stands above it.
        clock: tells when to draw again, and how long ago something was seen.
    """

    def __init__(self, console: Console, *, title: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self._title = title
        self._clock = clock
        self._tally = Tally()
        self._register = Register()
        self._repeated = 0
        self._drawn_at = float("-inf")
        self._live = Live(self._picture(), console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *_error: object) -> None:
        self._draw()
        self._live.stop()

    def show(self, arrivals: Sequence[Arrival], repeated: int) -> None:
        """Count the arrivals, and draw when it is time to."""
        self._tally.add(arrivals)
        self._register.add(arrivals)
        self._repeated = repeated
        if self._clock.monotonic() - self._drawn_at >= _REFRESH_INTERVAL:
            self._draw()

    def _draw(self) -> None:
        self._drawn_at = self._clock.monotonic()
        self._live.update(self._picture(), refresh=True)

    def _picture(self) -> Group:
        agents = self._register.rows()
        tables = [self._table(), self._agents(agents)] if agents else [self._table()]
        return Group(*tables, self._caption())

    def _table(self) -> Table:
        now = self._clock.now()
        table = Table(title=self._title)
        for name in ("Kind", "Type"):
            table.add_column(name, overflow="fold")
        for name in ("Count", "Per second", "Last seen", "Agents"):
            table.add_column(name, justify="right")
        for row in self._tally.rows(now)[:_ROWS]:
            numbers = (str(row.count), f"{row.rate:.1f}", _ago(now - row.last_seen_at))
            table.add_row(
                Text(row.kind, _STYLES[row.kind]), Text(row.type), *numbers, str(row.agents)
            )
        return table

    def _agents(self, rows: Sequence[Row]) -> Table:
        now = self._clock.now()
        table = Table(title="Agents, by their status reports")
        for name in ("Agent", "Process", "Status", "Lost"):
            table.add_column(name, overflow="fold")
        for name in ("Pending", "Delivered", "Rules", "Reported"):
            table.add_column(name, justify="right")
        for row in rows[:_AGENTS]:
            status = Text(row.status, _STATUS_STYLES[row.status])
            words = (printable(row.agent), _process(row))
            rest = (str(row.pending), str(row.delivered), _rules(row), _ago(now - row.reported_at))
            table.add_row(*map(Text, words), status, Text(printable(row.loss_account)), *rest)
        return table

    def _caption(self) -> Text:
        lines = ["Ctrl-C ends it."]
        if self._repeated:
            lines.insert(0, f"{self._repeated} came again and were recognised by their keys.")
        if self._tally.last_refusal:
            lines.insert(0, f"Last refused: {self._tally.last_refusal}")
        return Text("\n".join(lines))


def _process(row: Row) -> str:
    return printable(":".join(str(part) for part in (row.hostname, row.pid) if part is not None))


def _rules(row: Row) -> str:
    if row.rules_version is None:
        return "none"
    return f"v{row.rules_version}{', stale' if row.rules_stale else ''}"


def _clock_time(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def _ago(seconds: float) -> str:
    if seconds < 1:
        return "now"
    if seconds < 120:
        return f"{int(seconds)} s ago"
    return f"{int(seconds // 60)} min ago"
