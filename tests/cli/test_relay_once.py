"""`guardagent relay --once`, and what it refuses: statuses and words for cron and for people."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest
from click.testing import CliRunner

from guardagent.cli.commands import guardagent
from guardagent.encoding import Record
from guardagent.spool.frame import HEADER_BYTES, pack
from tests.cli.shared import KEY, Relay, SharedSpool
from tests.support.answers import Accept, RefuseKeys, RequireKey, Status

if TYPE_CHECKING:
    from tests.support.backend import Backend
    from tests.support.wire import Exchange

Once = Callable[..., tuple[int, str]]
Fill = Callable[..., list[str]]


@pytest.fixture
def once(backend: Backend) -> Once:
    """Run `guardagent relay --once` in this process; returns its status and what it printed."""

    def run(spool: SharedSpool, *arguments: str, **environ: str) -> tuple[int, str]:
        command = ["relay", "--once", "--endpoint", backend.url, "--drain-timeout", "0.3"]
        env = {**spool.environ, **environ}
        result = CliRunner().invoke(guardagent, [*command, *arguments], env=env)
        return result.exit_code, result.output

    return run


def test_an_emptied_spool_is_no_word_worth(
    shared_spool: SharedSpool, once: Once, backend: Backend, fill: Fill
) -> None:
    """Everything arrives, whatever the applications' settings say of delivery; cron stays quiet."""
    keys = fill(shared_spool, 30)
    theirs = {
        "GUARDAGENT_DELIVER": "false",
        "GUARDAGENT_FLUSH_ON_SIGTERM": "true",
        "GUARDAGENT_FLUSH_INTERVAL": "3600",
        "GUARDAGENT_BUFFER_SIZE": "10000",
    }

    before = signal.getsignal(signal.SIGTERM)
    ended = once(shared_spool, **theirs)

    assert ended == (0, "")
    assert backend.received == keys
    assert shared_spool.pending == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_options_beat_the_environment(
    sqlite_spool: SharedSpool, once: Once, backend: Backend, fill: Fill
) -> None:
    """Spool, key and project are those of the command line."""
    fill(sqlite_spool, 1)
    theirs = {"GUARDAGENT_SPOOL": "redis://nowhere.invalid", "GUARDAGENT_PROJECT_ID": "other"}
    mine = sqlite_spool.project
    options = ["--spool", sqlite_spool.url, "--project", mine, "--api-key", "given-key-012345"]

    status, _ = once(sqlite_spool, *options, **theirs)

    assert status == 0
    assert backend.requests[0].headers["x-api-key"] == "given-key-012345"
    assert backend.requests[0].headers["x-project-id"] == mine


@attrs.frozen
class AcceptAndAppend:
    """Accept; an application reports the next event at the same time."""

    spool: SharedSpool
    frame: bytes

    def play(self, exchange: Exchange) -> None:
        with self.spool.store() as store:
            store.append({"events": [self.frame]})
        Accept().play(exchange)


def test_what_comes_meanwhile_does_not_keep_it(
    shared_spool: SharedSpool, once: Once, backend: Backend, fill: Fill
) -> None:
    """It ends when what it found is gone, however much has come since."""
    keys = fill(shared_spool, 20)
    with shared_spool.store() as store:
        ((_, _, frame),) = store.waiting(1)
    backend.default = AcceptAndAppend(shared_spool, frame)

    assert once(shared_spool, GUARDAGENT_MAX_BATCH_SIZE="5") == (0, "")
    assert backend.keys == set(keys)
    assert shared_spool.pending > 0


@pytest.mark.parametrize("ahead", [-86_400.0, 120.0, float("inf")])
def test_what_clocks_say_does_not_matter(
    shared_spool: SharedSpool, once: Once, backend: Backend, fill: Fill, ahead: float
) -> None:
    """Records of a host whose clock is wrong are left like all others, and delivered like them."""
    backend.default = Status(503)
    fill(shared_spool, 1)
    with shared_spool.store() as store:
        ((kind, id_, frame),) = store.waiting(1)
        store.settle(kind, [id_])
        store.append({kind: [pack(Record(kind, frame[HEADER_BYTES:], time.time() + ahead))]})

    left, said = once(shared_spool)
    backend.default = Accept()

    assert left == 1
    assert "1 records are left (HTTP 503)" in said
    assert once(shared_spool) == (0, "")
    assert len(backend.received) == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Status(503), "HTTP 503"),
        (RequireKey("another-key"), "HTTP 401: the key is refused"),
    ],
    ids=["outage", "key"],
)
def test_what_is_left_is_told(
    sqlite_spool: SharedSpool,
    once: Once,
    backend: Backend,
    fill: Fill,
    answer: Status | RequireKey,
    reason: str,
) -> None:
    """When nothing moves it gives up, says why and how much is left, and leaves it to others."""
    backend.default = answer
    fill(sqlite_spool, 3)

    status, said = once(sqlite_spool)

    assert status == 1
    assert said.startswith(f"Error: {sqlite_spool.url} was not emptied: 3 records are left")
    assert reason in said
    assert sqlite_spool.pending == 3


def test_a_backend_that_is_away_is_told(
    shared_spool: SharedSpool, once: Once, backend: Backend, fill: Fill
) -> None:
    """Refused connections are a reason like any other, and no traceback."""
    fill(shared_spool, 3)
    backend.down()

    status, said = once(shared_spool)

    assert status == 1
    assert "3 records are left (ConnectionRefusedError" in said
    assert "Traceback" not in said


def test_a_spool_that_is_away_is_told(once: Once) -> None:
    """Nobody listens: the reason names Redis, and not its password."""
    away = SharedSpool("redis://:hush-hush@127.0.0.1:9/0", "shop")

    status, said = once(away)

    assert status == 1
    assert said.startswith("Error: redis://127.0.0.1:9/0 was not emptied: the spool cannot be used")
    assert "hush-hush" not in said


def test_what_another_relay_held_is_waited_for(
    sqlite_spool: SharedSpool, once: Once, backend: Backend, fill: Fill
) -> None:
    """A lease that nobody renews runs out while it waits, however short its patience is."""
    fill(sqlite_spool, 3)
    with sqlite_spool.store() as dead_relay:
        dead_relay.claim(100, 100_000, "1-00000000", 1.0)

    assert once(sqlite_spool, GUARDAGENT_SPOOL_LEASE="0.5")[0] == 0
    assert backend.requests[0].document["batch_id"] == "1-00000000"


def test_what_a_later_release_wrote_is_told(
    shared_spool: SharedSpool, once: Once, backend: Backend, fill: Fill
) -> None:
    """It is left to that release, and not waited for."""
    fill(shared_spool, 2)
    with shared_spool.store() as store:
        ((kind, _, frame),) = store.waiting(1)
        store.append({kind: [b"\x09" + frame[1:]]})

    status, said = once(shared_spool, "--drain-timeout", "600")

    assert status == 1
    assert "1 records are left (1 of them are of a later release" in said
    assert len(backend.received) == 2


def test_what_was_refused_is_told(
    sqlite_spool: SharedSpool, once: Once, backend: Backend, fill: Fill
) -> None:
    """The spool is empty, but somebody may want to look at the dead letters."""
    backend.default = Status(400)
    fill(sqlite_spool, 3)

    assert once(sqlite_spool) == (0, "Emptied, but not all was accepted: dropped 3 rejected.\n")
    with sqlite_spool.store() as store:
        assert [letter.reason for letter in store.dead(10)] == ["rejected"] * 3


def test_a_named_record_is_refused_alone(
    sqlite_spool: SharedSpool, once: Once, backend: Backend, fill: Fill
) -> None:
    """What the backend names as rejected is counted, the others are delivered."""
    backend.default = RefuseKeys(1)
    fill(sqlite_spool, 3)

    assert once(sqlite_spool)[1] == "Emptied, but not all was accepted: dropped 1 rejected.\n"
    assert len(backend.received) == 2


@attrs.frozen
class ChokeOn:
    """Break down over one event, and accept every request without it."""

    key: str

    def play(self, exchange: Exchange) -> None:
        answer = Status(500) if self.key in exchange.request.keys else Accept()
        answer.play(exchange)


def test_an_event_that_breaks_the_backend_holds_nothing_up(
    shared_spool: SharedSpool, once: Once, backend: Backend, fill: Fill
) -> None:
    """All others arrive, the one is found among them and is a dead letter."""
    keys = fill(shared_spool, 300)
    backend.default = ChokeOn(keys[10])

    ended = once(shared_spool, GUARDAGENT_MAX_BATCH_SIZE="50")

    assert ended == (0, "Emptied, but not all was accepted: dropped 1 rejected.\n")
    assert sorted(backend.received) == sorted([*keys[:10], *keys[11:]])
    with shared_spool.store() as store:
        (letter,) = store.dead(10)
    assert letter.reason == "rejected"
    assert keys[10].encode() in letter.frame


def test_lines_of_an_errand(
    sqlite_spool: SharedSpool, once: Once, backend: Backend, fill: Fill
) -> None:
    """With `--json` the last line is the outcome."""
    fill(sqlite_spool, 3)

    status, said = once(sqlite_spool, "--json")

    assert status == 0
    assert '"delivered":3' in said.splitlines()[-1]


def test_a_missing_file_is_not_made(once: Once, tmp_path: Path) -> None:
    """A mistyped path is an error, not an empty spool."""
    status, said = once(SharedSpool(f"sqlite:///{tmp_path}/nothing.db", "shop"))

    assert (status, said) == (1, f"Error: There is no spool at {tmp_path}/nothing.db.\n")
    assert not (tmp_path / "nothing.db").exists()


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({"GUARDAGENT_SPOOL": ""}, "memory:// spool can be reached by its own process only"),
        ({"GUARDAGENT_SPOOL": "memory://"}, "memory:// spool can be reached by its own process"),
        ({"GUARDAGENT_SPOOL": "ftp://x"}, "spool: given"),
        ({"GUARDAGENT_API_KEY": ""}, "There is no key"),
        ({"GUARDAGENT_TIMEOUT": "soon"}, "timeout: given"),
    ],
    ids=["none", "memory", "scheme", "key", "setting"],
)
def test_wrong_settings_are_named(
    sqlite_spool: SharedSpool, once: Once, environ: dict[str, str], reason: str
) -> None:
    """They are usage errors, with status 2."""
    status, said = once(sqlite_spool, **environ)

    assert status == 2
    assert reason in said


def test_a_signal_ends_an_errand(sqlite_spool: SharedSpool, backend: Backend, fill: Fill) -> None:
    """Ended before its time it says what is left, with status 0 as always after a signal."""
    backend.default = Status(503, {"Retry-After": "60"})
    fill(sqlite_spool, 3)
    relay = Relay(sqlite_spool, backend.url, "--once", "--drain-timeout", "600")
    try:
        assert backend.wait_for_requests(1)
        status, said = relay.end()
    finally:
        relay.close()

    assert status == 0
    assert "3 wait in the spool" in said


def test_the_header_is_not_sent(
    sqlite_spool: SharedSpool, once: Once, backend: Backend, fill: Fill
) -> None:
    """What a relay sends is byte for byte what the application encoded."""
    fill(sqlite_spool, 1)
    with sqlite_spool.store() as store:
        ((_, _, frame),) = store.waiting(1)

    once(sqlite_spool, "--api-key", KEY)

    assert frame[HEADER_BYTES:] in backend.requests[0].body
