"""Shows the demonstration: a progress bar on a terminal, lines elsewhere, a table at the end."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guardagent.demo.outcome import Outcome
    from guardagent.demo.play import Audience, Scene

__all__ = ["audience", "print_outcome"]


@contextmanager
def audience(console: Console | None = None) -> Iterator[Audience]:
    """Watch the play on this console; the program's output by default."""
    console = console or Console()
    if not console.is_terminal:
        yield _Reader(console)
        return
    with Live(console=console, auto_refresh=False) as live:
        yield _Watcher(live)


def print_outcome(outcome: Outcome, console: Console | None = None) -> None:
    """Print the table of what came of it."""
    # Honest, and yet: what a thread waits for the interpreter is no work of the agent's.
    caption = "Captures are timed by the wall: waiting for other threads is included."
    table = Table(title="What happened", show_header=False, caption=caption)
    table.add_column()
    table.add_column()
    for name, value in _rows(outcome):
        table.add_row(name, value)
    (console or Console()).print(table)


class _Watcher:
    """Moves a progress bar."""

    def __init__(self, live: Live) -> None:
        self._live = live
        columns = (TextColumn("{task.description:<22}"), BarColumn(), TaskProgressColumn())
        self._progress = Progress(*columns)
        self._task = self._progress.add_task("", total=1.0)

    def watch(self, scene: Scene) -> None:
        """Draw the scene."""
        self._progress.update(self._task, description=scene.name, completed=scene.progress)
        self._live.update(Group(self._progress, Text(_counts(scene))), refresh=True)


class _Reader:
    """Writes a line whenever something changes that one would not want to miss."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._name = ""

    def watch(self, scene: Scene) -> None:
        """Write a line for a new act."""
        if scene.name != self._name:
            self._name = scene.name
            self._console.print(f"{scene.name}: {_counts(scene)}", highlight=False, soft_wrap=True)


def _counts(scene: Scene) -> str:
    stats = scene.stats
    dropped = sum(stats.dropped.values())
    return (
        f"captured {scene.captured}  delivered {stats.delivered}  pending {stats.pending}  "
        f"retried {stats.retried}  dropped {dropped}  blocked {scene.blocked}"
    )


def _rows(outcome: Outcome) -> Iterator[tuple[str, str]]:
    stats, latency = outcome.stats, outcome.latency
    answers = ", ".join(f"{n} x {status}" for status, n in sorted(outcome.answers.items()))
    yield "Requests to the shop", f"{sum(outcome.answers.values())} ({answers})"
    if outcome.guard_library:
        found = "\n".join(f"{n} {event_type}" for event_type, n in outcome.found.items())
        yield f"{outcome.guard_library} reported", found
    yield "Captured", str(stats.captured)
    yield "Delivered", f"{stats.delivered} ({stats.bytes_sent} bytes)"
    yield "Retried", f"{stats.retried} requests"
    yield "Dropped", str(outcome.dropped)
    delay = "never" if outcome.rule_delay is None else f"{outcome.rule_delay:.2f} s later"
    polled = f"polled every {outcome.poll_interval:.2f} s"
    yield "Rule pushed", f"in force {delay} ({polled}), {outcome.blocked} visits blocked"
    yield "Collector away", f"{outcome.outage:.1f} s, {outcome.outage_captures} captured meanwhile"
    yield "Arrived", f"{len(outcome.arrived)}, {outcome.repeated} of them more than once"
    yield (
        "A capture took",
        f"p50 {_micro(latency.p50)}, p99 {_micro(latency.p99)}, at most {_micro(latency.worst)}",
    )
    yield "All in all", f"{outcome.seconds:.1f} s"


def _micro(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} us"
