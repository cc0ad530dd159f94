"""`guardagent collect`: a backend for development that shows what it receives."""

from __future__ import annotations

import ipaddress
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from guardagent import ConfigError
from guardagent.cli.interrupts import Interrupts
from guardagent.collector import Collector, CollectorServer, Store, StoreError
from guardagent.collector.answers import Refused
from guardagent.collector.rulebook import Rulebook

if TYPE_CHECKING:
    from collections.abc import Callable

    from guardagent.cli.views import View

__all__ = ["collect"]

#: Seconds between two looks when nothing arrives; also how long Ctrl-C may take.
_PATIENCE = 0.25


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--port",
    default=8765,
    show_default=True,
    type=click.IntRange(0, 65_535),
    help="Port to listen at; 0 takes a free one.",
)
@click.option(
    "--api-key",
    "api_keys",
    multiple=True,
    metavar="KEY",
    help="Let only this key in; may be repeated. Everybody is let in without.",
)
@click.option("--secret", metavar="TEXT", help="Require bodies signed with this secret.")
@click.option(
    "--encryption-key",
    "encryption_keys",
    multiple=True,
    metavar="KEY",
    envvar="GUARDAGENT_PROJECT_ENCRYPTION_KEY",
    help="Open sealed batches with this project key; may be repeated."
    "  [env: GUARDAGENT_PROJECT_ENCRYPTION_KEY]",
)
@click.option(
    "--db",
    type=click.Path(dir_okay=False, path_type=Path),
    help="SQLite file to keep everything in; without, it is gone at the end.",
)
@click.option(
    "--rules",
    type=click.Path(dir_okay=False, path_type=Path),
    help="JSON file with the rules to hand out; read anew for each agent that asks. See"
    ' "guardagent rules".',
)
@click.option(
    "--keep",
    default=1_000_000,
    show_default=True,
    type=click.IntRange(min=1),
    help="Keep the newest so many.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON line for each arrival.")
def collect(
    *,
    host: str,
    port: int,
    api_keys: tuple[str, ...],
    secret: str | None,
    encryption_keys: tuple[str, ...],
    db: Path | None,
    rules: Path | None,
    keep: int,
    as_json: bool,
) -> None:
    """Receive events, metrics and status reports, and show them.

    A backend for development: point an agent's endpoint at the address that
    is printed. Without a terminal it prints a line for each arrival. Ctrl-C
    or SIGTERM ends it with status 0.
    """
    _check_rules(rules)
    try:
        store = Store(db, max_records=keep)
    except StoreError as error:
        raise click.ClickException(str(error)) from error
    with store:
        app = _app(
            store,
            api_keys=api_keys,
            signing_secret=secret,
            encryption_keys=encryption_keys,
            rules=rules,
        )
        server = CollectorServer(app=app, host=host, port=port)
        begin = store.last_id
        with Interrupts() as interrupts:
            _start(server)
            with server, _view(server.url, as_json=as_json) as view:
                if not api_keys and not _is_loopback(host):
                    click.echo(
                        "Anybody who reaches this address is let in: see --api-key.", err=True
                    )
                _follow(store, view, server.stop, lambda: interrupts.came, after=begin)


def _app(store: Store, **settings: Any) -> Collector:
    try:
        return Collector(store, **settings)
    except ConfigError as error:
        # It speaks of an agent's setting; here an option has that value.
        reason = str(error).replace("project_encryption_key", "--encryption-key")
        raise click.ClickException(reason) from error


def _follow(
    store: Store,
    view: View,
    stop: Callable[[], None],
    is_over: Callable[[], bool],
    *,
    after: int = 0,
) -> None:
    """Show arrivals with an id over `after` until it is over; then stop, and show the last."""
    while not is_over():
        after = _show(store, view, after)
        store.wait(after, _PATIENCE)
    stop()
    _show(store, view, after)


def _show(store: Store, view: View, after: int) -> int:
    while arrivals := store.arrivals(after=after):
        view.show(arrivals, store.repeated)
        after = arrivals[-1].id
    view.show((), store.repeated)
    return after


def _start(server: CollectorServer) -> None:
    try:
        server.start()
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise click.ClickException(
            f"cannot listen at {server.host} port {server.port}: {reason}"
        ) from error
    # Not on stdout, which belongs to the arrivals.
    click.echo(f"Collecting at {server.url}", err=True)


def _view(url: str, *, as_json: bool) -> View:
    from rich.console import Console

    from guardagent.cli.views import Lines, LiveTable, json_line, plain_line

    console = Console()
    if as_json:
        return Lines(sys.stdout, json_line)
    if not console.is_terminal:
        return Lines(sys.stdout, plain_line)
    return LiveTable(console, title=f"guardagent collector at {url}")


def _check_rules(rules: Path | None) -> None:
    try:
        Rulebook(rules).read()
    except Refused as refused:
        raise click.ClickException(f"{rules}: {'; '.join(refused.errors)}") from refused


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
