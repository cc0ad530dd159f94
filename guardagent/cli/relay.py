"""`guardagent relay`: delivers what other processes put into a spool."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import attrs
import click

from guardagent import Agent, AgentConfig, ConfigError
from guardagent._clock import SYSTEM_CLOCK, Bell
from guardagent.cli.interrupts import Interrupts
from guardagent.cli.opening import name_of, refuse_memory, refuse_missing
from guardagent.cli.relay_meter import Complaints, Meter, Reading
from guardagent.cli.tally import printable
from guardagent.errors import SpoolError
from guardagent.spool.address import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from guardagent.cli.relay_view import View
    from guardagent.fields import Kind
    from guardagent.spool.store import Id, Store

__all__ = ["relay"]

#: Seconds between two looks of one that empties the spool.
_ERRAND_INTERVAL = 0.05
#: Seconds between two lines where there is no terminal.
_LOG_INTERVAL = 60.0


@click.command()
@click.option(
    "--spool",
    metavar="URL",
    help="sqlite:///path or redis://...; in the environment fewer people see a password."
    "  [env: GUARDAGENT_SPOOL]",
)
@click.option("--endpoint", metavar="URL", help="Base address.  [env: GUARDAGENT_ENDPOINT]")
@click.option(
    "--api-key",
    metavar="KEY",
    help="Key of the backend; in the environment fewer people see it.  [env: GUARDAGENT_API_KEY]",
)
@click.option(
    "--project",
    "project_id",
    metavar="ID",
    help="Project, as the applications have it.  [env: GUARDAGENT_PROJECT_ID]",
)
@click.option("--once", is_flag=True, help="Empty the spool and end; for cron.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
@click.option(
    "--interval",
    type=click.FloatRange(0.05, 86_400.0),
    help="Seconds between two lines; 1, or 60 where there is neither terminal nor --json.",
)
@click.option(
    "--drain-timeout",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0.0, 3_600.0),
    help="Seconds that the request under way may take at the end; with --once also seconds"
    " without any progress after which it gives up.",
)
def relay(
    *, once: bool, as_json: bool, interval: float | None, drain_timeout: float, **options: Any
) -> None:
    """Deliver what applications put into a spool they share.

    Any number of relays, on any number of machines, share the work; what one
    that was killed had in hand is taken over by the others. Every setting of
    the agent is read from the environment, as GUARDAGENT_<NAME>; the options
    beat it.

    Ctrl-C or SIGTERM ends it in order, with status 0: what it has in hand is
    sent or given back. A second one ends it at once. With --once the status is
    0 when the spool was emptied; 1, and a line that says why, when it was not.
    """
    complaints = Complaints()
    given = {name: value for name, value in options.items() if value is not None}
    config = _config(given, complaints, once=once)
    if once:
        refuse_missing(config)
    if interval is None:
        interval = 1.0 if as_json or sys.stdout.isatty() else _LOG_INTERVAL
    view = _view(config, as_json=as_json, quiet=once)
    try:
        store = open_store(config, SYSTEM_CLOCK)
        agent = Agent(config)
    except ConfigError as error:
        raise click.UsageError(printable(str(error), 500)) from error
    meter = Meter(agent, store, complaints, SYSTEM_CLOCK)
    errand = _Errand(config, store, drain_timeout) if once else None
    is_silent = once or (sys.stdout.isatty() and not as_json)
    with contextlib.closing(store), _Signals() as signals, _log_on_stderr(quiet=is_silent):
        if not once:
            click.echo(f"Relaying from {name_of(config)} to {config.endpoint}", err=True)
        with view:
            _run(agent, meter, view, signals, interval=interval, errand=errand)
        if signals.came:
            click.echo("Ending; a second signal ends it at once.", err=True)
        agent.stop(timeout=drain_timeout)
        last = meter.read()
        if as_json:
            view.show(last)
    _tell_the_end(last, config, errand, was_stopped=signals.came)


def _run(
    agent: Agent,
    meter: Meter,
    view: View,
    signals: _Signals,
    *,
    interval: float,
    errand: _Errand | None,
) -> None:
    """Work until a signal comes, or the errand is over."""
    show_at = float("-inf")
    tick = interval if errand is None else min(interval, _ERRAND_INTERVAL)
    while not signals.came:
        agent.start()  # a thread that was found dead is started again
        reading = meter.read()
        now = SYSTEM_CLOCK.monotonic()
        if now >= show_at:
            show_at = now + interval
            view.show(reading)
        if errand is not None and errand.is_over(reading, now):
            return
        signals.bell.wait(tick)


class _Errand:
    """Empties a spool: knows when that is done, and when there is no more hope.

    Applications may go on filling it, so it is empty when nothing of what it held at first is left.
    """

    def __init__(self, config: AgentConfig, store: Store, patience: float) -> None:
        self._store = store
        self._patience = patience
        # What a killed relay holds comes free when its lease runs out.
        self._lease = config.spool_lease * 1.5 + 2 * config.flush_interval
        self._goal: Mapping[Kind, tuple[Id, Id]] | None = None
        self._mark: tuple[int, int] | None = None
        self._progress_at = SYSTEM_CLOCK.monotonic()
        self._had_trouble = False
        self.is_done = False

    def is_over(self, reading: Reading, now: float) -> bool:
        """Tell whether to end it; `is_done` tells why."""
        if reading.spool_error is None and self._is_reached():
            self.is_done = True
            return True
        if reading.later and reading.later == reading.pending:
            return True  # nobody of this release can do more
        mark = (reading.settled, reading.pending)
        has_trouble = bool(reading.last_error or reading.spool_error)
        if self._mark is None or mark[0] > self._mark[0] or mark[1] < self._mark[1]:
            self._mark, self._progress_at, self._had_trouble = mark, now, has_trouble
        elif has_trouble and not self._had_trouble:
            self._progress_at, self._had_trouble = now, True
        patience = self._patience if has_trouble else max(self._patience, self._lease)
        return now - self._progress_at >= patience

    def _is_reached(self) -> bool:
        try:
            if self._goal is None:
                self._goal = self._store.extent()
            return not any(self._store.holds(kind, *span) for kind, span in self._goal.items())
        except SpoolError:
            return False  # the next reading tells of it


class _Signals(Interrupts):
    """Lets the first signal end the program in order, and the second one at once."""

    def __init__(self) -> None:
        super().__init__()
        self.bell = Bell()

    def _note(self, *signals: object) -> None:
        super()._note(*signals)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        self.bell.ring()


def _tell_the_end(
    last: Reading, config: AgentConfig, errand: _Errand | None, *, was_stopped: bool
) -> None:
    """Say what was done and what is left, when somebody wants to know; exit with the status."""
    lost = ", ".join(f"{n} {reason}" for reason, n in last.dropped.items())
    dropped = f", dropped {lost}" if lost else ""
    if errand is None or was_stopped:
        text = f"Ended. Delivered {last.delivered}{dropped}; {last.pending} wait in the spool."
        click.echo(text, err=True)
    elif not errand.is_done:
        waiting = f"{last.later} of them are of a later release; other processes hold the rest"
        reason = last.last_error or (waiting if last.later else "other processes hold them")
        left = last.spool_error or f"{last.pending} records are left ({reason})"
        raise click.ClickException(printable(f"{name_of(config)} was not emptied: {left}", 500))
    elif lost:
        click.echo(f"Emptied, but not all was accepted: dropped {lost}.", err=True)


def _config(options: Mapping[str, Any], complaints: Complaints, *, once: bool) -> AgentConfig:
    """Read the settings; the environment may be the applications' own."""
    try:
        config = AgentConfig.from_env(
            **options, deliver=True, flush_on_sigterm=False, on_error=complaints.note
        )
        config = attrs.evolve(config, **_pace(config, once=once))
    except ConfigError as error:
        raise click.UsageError(printable(str(error), 500)) from error
    if not config.is_enabled:
        raise click.UsageError("There is no key: set GUARDAGENT_API_KEY, or give --api-key.")
    refuse_memory(config)
    return config


def _pace(config: AgentConfig, *, once: bool) -> dict[str, Any]:
    """Return when to send, where the environment does not say it.

    Full batches while much comes in; otherwise what has come in half a second.
    """
    if once:
        return {"buffer_size": 1, "flush_interval": 0.05}
    pace = {"buffer_size": config.max_batch_size, "flush_interval": 0.5}
    return {
        name: value
        for name, value in pace.items()
        if not os.environ.get(f"GUARDAGENT_{name.upper()}", "").strip()
    }


def _view(config: AgentConfig, *, as_json: bool, quiet: bool) -> View:
    from rich.console import Console

    from guardagent.cli.relay_view import Lines, LiveTable, Silence, json_line, plain_line

    if as_json:
        return Lines(sys.stdout, json_line)
    console = Console()
    if console.is_terminal:
        title = f"guardagent relay: {name_of(config)} to {printable(config.endpoint)}"
        return LiveTable(console, title=title)
    return Silence() if quiet else Lines(sys.stdout, plain_line)


@contextlib.contextmanager
def _log_on_stderr(*, quiet: bool) -> Iterator[None]:
    """Write the agent's own log lines to stderr, for a service's journal."""
    if quiet:
        yield  # the table shows it, and cron wants to hear of what matters only
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log = logging.getLogger("guardagent")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
