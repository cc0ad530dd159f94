"""`guardagent spool`: what whoever looks after a spool sees and does."""

from __future__ import annotations

import functools
import json
import os
import stat
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import click

from guardagent._clock import SYSTEM_CLOCK
from guardagent.cli.exports import body_text, dead_line, id_text, waiting_line
from guardagent.cli.opening import opened
from guardagent.cli.tally import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from guardagent.spool.store import DeadLetter, Id, Store

__all__ = ["spool"]

#: Records read at a time.
_PAGE = 500


@click.group()
def spool() -> None:
    """Look after a spool that processes share.

    It is the one at --spool or GUARDAGENT_SPOOL. All of it may be done while
    applications and relays use it.
    """


def _at_a_spool(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say where, and open it."""

    @click.option(
        "--spool",
        "url",
        metavar="URL",
        envvar="GUARDAGENT_SPOOL",
        required=True,
        help="sqlite:///path or redis://...; in the environment fewer people see a password."
        "  [env: GUARDAGENT_SPOOL]",
    )
    @click.option(
        "--project",
        "project_id",
        metavar="ID",
        envvar="GUARDAGENT_PROJECT_ID",
        help="Project, as the applications have it.  [env: GUARDAGENT_PROJECT_ID]",
    )
    @functools.wraps(command)
    def wrapped(*, url: str, project_id: str | None, **options: Any) -> None:
        with opened(url, project_id) as store:
            command(store, **options)

    return wrapped


@spool.command()
@_at_a_spool
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(store: Store, *, as_json: bool) -> None:
    """Show how much waits, since when, and the dead letters by reason."""
    depth = store.depth()
    oldest_at = store.oldest_at() if depth.records else None
    # A damaged record does not tell when it was made.
    age = None if oldest_at in (None, float("inf")) else max(0.0, SYSTEM_CLOCK.now() - oldest_at)
    census = store.census()
    if as_json:
        told = {
            "records": depth.records,
            "bytes": depth.nbytes,
            "oldest_age": None if age is None else round(age, 3),
            "of_a_later_release": census.later,
            "dead_letters": sum(census.dead.values()),
            "dead_letters_by_reason": dict(sorted(census.dead.items())),
            "dead_letter_bytes": census.dead_bytes,
            "generation": depth.generation,
        }
        click.echo(json.dumps(told))
        return
    click.echo(f"Records       {depth.records}")
    if census.later:
        click.echo(f"  {census.later} of a later release: this one does not send them")
    click.echo(f"Bytes         {depth.nbytes}")
    click.echo(f"Oldest        {'-' if age is None else f'{age:.0f} s'}")
    click.echo(f"Dead letters  {sum(census.dead.values())} ({census.dead_bytes} bytes)")
    for reason, n in sorted(census.dead.items()):
        click.echo(f"  {printable(reason)}: {n}")
    click.echo(f"Generation    {printable(depth.generation) or '-'}")


@spool.command()
@_at_a_spool
@click.option("--reason", help="Only those with this reason.")
@click.option("--bodies", is_flag=True, help="Show what they say, too.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON line for each.")
def dead(store: Store, *, reason: str | None, bodies: bool, as_json: bool) -> None:
    """List the records that will not be sent: id, time, kind, reason."""
    for letter in _letters(store, reason):
        if as_json:
            click.echo(dead_line(letter, body=bodies))
            continue
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(letter.buried_at))
        line = f"{id_text(letter.id)}  {at}  {letter.kind}  {letter.reason}"
        body = f"  {body_text(letter.frame)}" if bodies else ""
        click.echo(printable(line) + body)


@spool.command()
@_at_a_spool
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All dead letters.")
@click.option("--reason", help="All dead letters with this reason.")
def requeue(store: Store, *, ids: tuple[str, ...], everything: bool, reason: str | None) -> None:
    """Have dead letters sent again, after everything that waits."""
    if sum((bool(ids), everything, reason is not None)) != 1:
        raise click.UsageError("Give ids as `spool dead` shows them, or --all, or --reason.")
    found = [letter.id for letter in _letters(store, reason)]
    if ids:
        known = {id_text(id_): id_ for id_ in found}
        missing = [printable(name, 40) for name in ids if name not in known]
        if missing:
            raise click.ClickException(
                f"nothing was requeued: no dead letter has the id {', '.join(missing[:5])}"
            )
        found = [known[name] for name in dict.fromkeys(ids)]
    click.echo(f"Requeued {_in_pages(store.requeue, found)}.")


@spool.command()
@_at_a_spool
@click.option("--waiting", "only", flag_value="waiting", help="Only what waits or is being sent.")
@click.option("--dead", "only", flag_value="dead", help="Only dead letters.")
@click.option(
    "--output",
    metavar="FILE",
    default="-",
    type=click.Path(dir_okay=False, allow_dash=True),
    help='Write to this file, made for your eyes only; "-" is the standard output.',
)
def export(store: Store, *, only: str | None, output: str) -> None:
    """Write records as JSON lines and leave them where they are.

    Each line holds the record under "record", and around it its id, kind,
    state, the time it was made and, of a dead letter, reason and time. One
    that cannot be read is given whole under "frame", in base64.
    """
    written = 0
    with _output(output) as stream:
        for line in _lines(store, only):
            stream.write(f"{line}\n")
            written += 1
    click.echo(f"{written} records.", err=True)


@spool.command()
@_at_a_spool
@click.option("--dead", "only_dead", is_flag=True, help="Forget the dead letters instead.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(store: Store, *, only_dead: bool, yes: bool) -> None:
    """Forget every record that waits, also those being sent; asks first.

    Dead letters stay, unless it is for them that --dead asks.
    """
    depth = store.depth()
    count = store.count_dead() if only_dead else depth.records
    what = f"{count} dead letters" if only_dead else f"{count} records ({depth.nbytes} bytes)"
    if not count:
        click.echo("There is nothing to forget.")
        return
    if not yes:
        click.confirm(f"Forget {what} for ever?", abort=True, err=True)
    if only_dead:
        gone = _in_pages(store.discard, [letter.id for letter in _letters(store)])
    else:
        gone = store.purge()
    click.echo(f"Forgot {gone}.")


def _letters(store: Store, reason: str | None = None) -> Iterator[DeadLetter]:
    """Walk through the dead letters, a page at a time."""
    page = store.dead(_PAGE)
    while page:
        yield from (letter for letter in page if reason is None or letter.reason == reason)
        page = store.dead(_PAGE, page[-1].id)


def _lines(store: Store, only: str | None) -> Iterator[str]:
    if only != "dead":
        page = store.waiting(_PAGE)
        while page:
            yield from (waiting_line(*record) for record in page)
            page = store.waiting(_PAGE, page[-1][:2])
    if only != "waiting":
        yield from (dead_line(letter) for letter in _letters(store))


def _in_pages(work: Callable[[Sequence[Id]], int], ids: Sequence[Id]) -> int:
    return sum(work(ids[at : at + _PAGE]) for at in range(0, len(ids), _PAGE))


@contextmanager
def _output(name: str) -> Iterator[TextIO]:
    try:
        if name == "-":
            yield sys.stdout
            return
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT, 0o600)
        with open(descriptor, "w", encoding="ascii") as stream:  # noqa: PTH123 - a descriptor
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                # Before anything is written: a file that was there may be open to others.
                os.fchmod(descriptor, 0o600)
                os.ftruncate(descriptor, 0)
            yield stream
    except BrokenPipeError:
        raise  # whoever was reading has seen enough; click ends quietly
    except OSError as error:
        reason = f"{printable(name)} cannot be written: {error.strerror}"
        raise click.ClickException(reason) from error
