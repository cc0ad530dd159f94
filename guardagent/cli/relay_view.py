"""Ways to show a relay at work: a live table, plain lines, JSON lines."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from rich.live import Live
from rich.table import Table
from rich.text import Text

from guardagent.cli.tally import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from rich.console import Console
    from typing_extensions import Self

    from guardagent.cli.relay_meter import Reading

__all__ = ["Lines", "LiveTable", "Silence", "View", "json_line", "plain_line"]

_LINE = 500


class View(Protocol):
    """Shows readings while it is entered."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def show(self, reading: Reading) -> None:
        """Show this one."""
        ...


class Lines:
    """Writes a line for each reading.

    Args:
        form: makes the line: `json_line` or `plain_line`.
    """

    def __init__(self, stream: TextIO, form: Callable[[Reading], str]) -> None:
        self._stream = stream
        self._form = form

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def show(self, reading: Reading) -> None:
        """Write it at once: somebody may be reading through a pipe."""
        self._stream.write(f"{self._form(reading)}\n")
        self._stream.flush()


class Silence:
    """Shows nothing: cron sends a mail for each word."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def show(self, reading: Reading) -> None:
        """Do nothing."""


def json_line(reading: Reading) -> str:
    """Return a reading as a JSON object."""
    lag = reading.lag
    told: dict[str, Any] = {
        "at": round(reading.at, 3),
        "pid": reading.pid,
        "delivered": reading.delivered,
        "events_per_second": round(reading.events_per_second, 1),
        "bytes_sent": reading.bytes_sent,
        "bytes_per_second": round(reading.bytes_per_second, 1),
        "pending": reading.pending,
        "spool_bytes": reading.spool_bytes,
        "lag": None if lag is None else round(lag, 3),
        "in_flight": reading.in_flight,
        "retried": reading.retried,
        "dropped": dict(reading.dropped),
        "of_a_later_release": reading.later,
        "dead_letters": reading.dead_letters,
        "breaker": reading.breaker,
        "durable": reading.durable,
        "last_error": reading.last_error,
        "spool_error": reading.spool_error,
    }
    return json.dumps(told, separators=(",", ":"))


def plain_line(reading: Reading) -> str:
    """Return a line to read."""
    clock = time.strftime("%H:%M:%S", time.localtime(reading.at))
    line = (
        f"{clock} delivered {reading.delivered} ({reading.events_per_second:.0f}/s)"
        f" pending {reading.pending} lag {_lag(reading)} dead {_dead(reading)}"
    )
    return printable(f"{line} {'; '.join(_troubles(reading))}".rstrip(), _LINE)


class LiveTable:
    """Keeps a table on the terminal.

    Args:
        title: stands above it.
    """

    def __init__(self, console: Console, *, title: str) -> None:
        self._title = title
        self._live = Live(Text(title), console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *_error: object) -> None:
        self._live.stop()

    def show(self, reading: Reading) -> None:
        """Draw it."""
        caption = Text("\n".join([*_troubles(reading), "Ctrl-C ends it."]))
        table = Table(title=self._title, show_header=False, caption=caption, min_width=60)
        table.add_column()
        table.add_column(justify="right")
        for name, value in _rows(reading):
            table.add_row(name, Text(value))
        self._live.update(table, refresh=True)


def _rows(reading: Reading) -> Iterator[tuple[str, str]]:
    yield "Delivered by this relay", f"{reading.delivered:,} ({_size(reading.bytes_sent)})"
    yield "Events a second", f"{reading.events_per_second:,.0f}"
    yield "Bytes a second", _size(reading.bytes_per_second)
    yield "Being sent", f"{reading.in_flight:,}"
    yield "Requests repeated", f"{reading.retried:,}"
    yield "Pending in the spool", f"{reading.pending:,} ({_size(reading.spool_bytes)})"
    yield "Lag", _lag(reading)
    yield "Dead letters", _dead(reading)
    losses = ", ".join(f"{n} {reason}" for reason, n in reading.dropped.items())
    yield "Dropped by this relay", losses or "none"
    yield "Breaker", reading.breaker
    yield "Durable", "yes" if reading.durable else "no"


def _troubles(reading: Reading) -> list[str]:
    troubles = []
    if reading.spool_error:
        troubles.append(reading.spool_error)
    if reading.last_error:
        troubles.append(f"last error: {printable(reading.last_error)}")
    return troubles


def _lag(reading: Reading) -> str:
    lag = reading.lag
    return "unknown" if lag is None else f"{lag:.1f} s"


def _dead(reading: Reading) -> str:
    return "unknown" if reading.dead_letters is None else f"{reading.dead_letters:,}"


def _size(nbytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if nbytes < 1024 or unit == "GiB":
            break
        nbytes /= 1024
    return f"{nbytes:,.0f} {unit}" if unit == "B" else f"{nbytes:,.1f} {unit}"
