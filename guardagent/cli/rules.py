"""`guardagent rules`: read, change and follow the rules that agents get."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from guardagent import AgentConfig, ConfigError, DynamicRules
from guardagent._clock import SYSTEM_CLOCK, Bell
from guardagent.cli.changes import changes
from guardagent.cli.interrupts import Interrupts
from guardagent.cli.places import Collector, File, Place, PlaceError, UnreadableError
from guardagent.cli.watcher import Watcher
from guardagent.collector.answers import Refused
from guardagent.collector.body import parse_json
from guardagent.errors import RulesError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["rules"]

#: Where `guardagent collect` listens unless told otherwise.
_ENDPOINT = "http://127.0.0.1:8765"

#: Longest nap: how long Ctrl-C may take.
_PATIENCE = 0.25


@click.group()
def rules() -> None:
    """Read, change and follow the rules that agents get.

    They are those of a "guardagent collect" at GUARDAGENT_ENDPOINT or
    --endpoint, or of a file with --file. What is changed is checked first, by
    the code that agents check it with, and gets the next version.
    """


def _at_a_place(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say where, and open the place."""

    @click.option(
        "--endpoint",
        metavar="URL",
        help=f"Address of the collector; {_ENDPOINT} by default.  [env: GUARDAGENT_ENDPOINT]",
    )
    @click.option("--api-key", metavar="KEY", help="Its key.  [env: GUARDAGENT_API_KEY]")
    @click.option(
        "--secret",
        "payload_signing_secret",
        metavar="TEXT",
        help="Its signing secret.  [env: GUARDAGENT_PAYLOAD_SIGNING_SECRET]",
    )
    @click.option(
        "--file",
        "path",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Use this JSON file, and no collector.",
    )
    @functools.wraps(command)
    def wrapped(*, path: Path | None, **options: Any) -> None:
        names = ("endpoint", "api_key", "payload_signing_secret")
        where = {name: options.pop(name) for name in names}
        with contextlib.closing(_place(path, where)) as place:
            try:
                command(place, **options)
            except PlaceError as error:
                raise click.ClickException(_in_lines(str(error))) from error

    return wrapped


@rules.command()
@_at_a_place
def get(place: Place) -> None:
    """Print the rules as JSON."""
    kept = place.get()
    click.echo(json.dumps({} if kept is None else kept.document, indent=2))


@rules.command("set")
@_at_a_place
@click.argument("source", metavar="FILE", type=click.File("rb"))
def set_(place: Place, *, source: IO[bytes]) -> None:
    """Put the document in FILE in force; "-" reads it from the standard input."""
    # Standard input may be anything that can be read, without a name too.
    document = _checked(source.read(), getattr(source, "name", "<stdin>"))
    try:
        old = place.get()
    except UnreadableError as error:
        click.echo(f"Nothing usable was there: {_in_lines(str(error))}", err=True)
        old = None
    _put(place, document, {} if old is None else old.document, tag="" if old is None else old.tag)


@rules.command()
@_at_a_place
def edit(place: Place) -> None:
    """Change the rules in your editor ($VISUAL, $EDITOR).

    A document that agents would refuse is shown to you again, with the
    reasons; one that somebody else changed meanwhile is not overwritten.
    """
    kept = place.get()
    old = {} if kept is None else kept.document
    text: str | None = json.dumps(old, indent=2) + "\n"
    while True:
        text = click.edit(text, extension=".json")
        if text is None:
            click.echo("Nothing changed.")
            return
        with _draft(text):
            try:
                document = _checked(text.encode(), "the text")
            except click.ClickException as error:
                click.echo(error.message, err=True)
                if not click.confirm("Edit it again?", default=True, err=True):
                    raise click.ClickException("Nothing was changed.") from error
                continue
            _put(place, document, old, tag="" if kept is None else kept.tag)
            return


@rules.command()
@_at_a_place
@click.option(
    "--interval",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0.05, 3_600.0),
    help="Seconds between two looks.",
)
def watch(place: Place, *, interval: float) -> None:
    """Follow what agents would get, a line for each change; Ctrl-C ends it."""
    watcher = Watcher(place)
    bell = Bell()
    with Interrupts() as interrupts:
        while not interrupts.came:
            for line in watcher.look():
                click.echo(line)
            deadline = SYSTEM_CLOCK.monotonic() + interval
            left = interval
            while left > 0 and not interrupts.came:
                bell.wait(min(left, _PATIENCE))
                left = deadline - SYSTEM_CLOCK.monotonic()


def _place(path: Path | None, where: Mapping[str, Any]) -> Place:
    given = {name: value for name, value in where.items() if value is not None}
    if path is not None:
        if given:
            raise click.UsageError("--file needs no collector, and so no address, key or secret.")
        return File(path)
    settings = {**_defaults(), **given}
    try:
        return Collector(AgentConfig.from_env(**settings))
    except ConfigError as error:
        raise click.UsageError(str(error)) from error


def _defaults() -> dict[str, Any]:
    """Return what is used where neither an option nor the environment says otherwise."""
    # A collector without keys lets everybody in, and an agent without one does nothing.
    defaults = {"endpoint": _ENDPOINT, "api_key": "no-key-was-given"}
    absent = {
        name: value
        for name, value in defaults.items()
        if not os.environ.get(f"GUARDAGENT_{name.upper()}", "").strip()
    }
    return {"install_id": "guardagent-rules", **absent}


def _checked(text: bytes, name: str) -> dict[str, Any]:
    """Read a document with the code that agents read it with."""
    try:
        document = parse_json(text)
        DynamicRules.from_mapping(document)
    except Refused as refused:
        reasons = [error.removeprefix("body: ") for error in refused.errors]
        raise click.ClickException(f"{name}: {'; '.join(reasons)}") from refused
    except RulesError as error:
        message = f"{name} is not a rules document; nothing was changed:\n{_in_lines(str(error))}"
        raise click.ClickException(message) from error
    return dict(document)


def _put(
    place: Place, document: Mapping[str, Any], old: Mapping[str, Any], *, tag: str = ""
) -> None:
    """Store a document, and print what changed."""
    stored = place.put(document, tag=tag)
    if stored.ignored:
        click.echo(f"Agents ignore what they do not know: {', '.join(stored.ignored)}", err=True)
    if not stored.is_new:
        click.echo(f"Nothing changed: {stored.rule_id} version {stored.version} stays.")
        return
    click.echo(f"{stored.rule_id} version {stored.version} is in force:")
    try:
        before = DynamicRules.from_mapping(old)
    except RulesError:  # from a collector of another version, which took it
        before = DynamicRules()
    for line in changes(before, DynamicRules.from_mapping(document)) or ["no field differs"]:
        click.echo(f"  {line}")


@contextlib.contextmanager
def _draft(text: str) -> Iterator[None]:
    """Leave what somebody wrote in a file when it could not be stored."""
    try:
        yield
    except (click.ClickException, click.Abort, PlaceError):
        with tempfile.NamedTemporaryFile(
            "w", prefix="guardagent-rules-", suffix=".json", delete=False, encoding="utf-8"
        ) as file:
            file.write(text)
        click.echo(f"Your text is in {file.name}", err=True)
        raise


def _in_lines(message: str) -> str:
    """Put each bad field on a line of its own."""
    return re.sub(r"; (?=[a-z_]+: )", "\n", message)
