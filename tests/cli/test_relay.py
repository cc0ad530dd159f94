"""`guardagent relay`, as processes that share a spool."""

from __future__ import annotations

import re
import signal
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.cli.shared import PATIENCE, Relay, SharedSpool
from tests.support.answers import Held, RequireKey, Status
from tests.support.redis_server import RedisServer

if TYPE_CHECKING:
    from tests.support.backend import Backend

StartRelay = Callable[..., Relay]
Fill = Callable[..., list[str]]


@pytest.mark.slow
def test_two_relays_share_the_work(
    shared_spool: SharedSpool, relay: StartRelay, backend: Backend, fill: Fill
) -> None:
    """Both deliver, and nothing arrives twice."""
    first = Held()
    backend.script(first)
    keys = fill(shared_spool, 1_000)

    relays = [relay(shared_spool, GUARDAGENT_MAX_BATCH_SIZE="50") for _ in range(2)]
    both_came = backend.wait_for(950, PATIENCE)  # one of them has done all but the batch held
    first.let_go()

    assert both_came
    assert backend.wait_for(1_000, PATIENCE)
    assert [one.end()[0] for one in relays] == [0, 0]
    assert Counter(backend.received) == Counter(keys)
    assert len({request.connection for request in backend.requests}) == 2
    assert shared_spool.pending == 0


@pytest.mark.slow
def test_what_a_killed_relay_held_is_taken_over(
    shared_spool: SharedSpool, relay: StartRelay, backend: Backend, fill: Fill
) -> None:
    """Killed in mid-batch, its batch comes again under the same id, and nothing else does."""
    held = Held()
    backend.script(held)
    keys = fill(shared_spool, 200)
    victim = relay(shared_spool, GUARDAGENT_MAX_BATCH_SIZE="50")
    assert backend.wait_for_requests(1, PATIENCE)

    victim.end(signal.SIGKILL)
    heir = relay(shared_spool, GUARDAGENT_MAX_BATCH_SIZE="50")
    all_came = backend.wait_for(200, PATIENCE)
    held.let_go()

    assert all_came, heir.end()
    assert heir.end()[0] == 0
    interrupted, *others = backend.requests
    assert backend.keys == set(keys)
    assert [one.body for one in others].count(interrupted.body) == 1
    assert Counter(key for one in others for key in one.keys) == Counter(keys)
    assert shared_spool.pending == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order(
    sqlite_spool: SharedSpool, relay: StartRelay, backend: Backend, fill: Fill, number: int
) -> None:
    """The request under way comes to its end; the rest is the next relay's at once."""
    held = Held()
    backend.script(held)
    keys = fill(sqlite_spool, 100)
    settings = {"GUARDAGENT_MAX_BATCH_SIZE": "40", "GUARDAGENT_SPOOL_LEASE": "600"}
    first = relay(sqlite_spool, **settings)
    assert backend.wait_for_requests(1, PATIENCE)

    first.send(number)
    first.complaint("Ending")
    held.let_go()

    assert first.wait() == 0
    ended = re.search(r"Delivered (\d+); (\d+) wait in the spool", first.complaint("Ended"))
    assert ended is not None
    delivered, waiting = map(int, ended.groups())
    assert delivered >= 40
    assert delivered + waiting == 100
    assert relay(sqlite_spool, "--once", **settings).wait() == 0
    assert Counter(backend.received) == Counter(keys)


def test_the_end_is_bounded(
    sqlite_spool: SharedSpool, relay: StartRelay, backend: Backend, fill: Fill
) -> None:
    """A backend that never answers does not hold it up, and costs no event."""
    held = Held()
    backend.script(held)
    fill(sqlite_spool, 10)
    stuck = relay(sqlite_spool, "--drain-timeout", "0.2")
    assert backend.wait_for_requests(1, PATIENCE)

    status, said = stuck.end()
    held.let_go()

    assert status == 0
    assert "Ended. Delivered 0; 10 wait in the spool." in said
    assert sqlite_spool.pending == 10


def test_a_second_signal_ends_it_at_once(
    sqlite_spool: SharedSpool, relay: StartRelay, backend: Backend, fill: Fill
) -> None:
    """Whoever cannot wait for the drain need not."""
    held = Held()
    backend.script(held)
    fill(sqlite_spool, 10)
    stuck = relay(sqlite_spool, "--drain-timeout", "600")
    assert backend.wait_for_requests(1, PATIENCE)

    stuck.send(signal.SIGTERM)
    stuck.complaint("Ending")
    stuck.send(signal.SIGTERM)
    status = stuck.wait()
    held.let_go()

    assert status == -signal.SIGTERM


def test_json_lines_tell_what_it_does(
    shared_spool: SharedSpool, relay: StartRelay, backend: Backend, fill: Fill
) -> None:
    """Each line is an object; they follow the work from the backlog to its end."""
    held = Held()
    backend.script(held)
    fill(shared_spool, 20)
    working = relay(shared_spool, "--json", "--interval", "0.05")
    while (busy := working.reading())["in_flight"] != 20:
        pass
    held.let_go()
    while (done := working.reading())["delivered"] != 20:
        pass

    assert working.end()[0] == 0
    assert (busy["pending"], busy["delivered"]) == (20, 0)
    assert busy["lag"] > 0
    assert busy["spool_bytes"] > 20 * 100
    assert (done["pending"], done["lag"], done["dead_letters"]) == (0, 0.0, 0)
    assert done["events_per_second"] > 0
    assert done["bytes_per_second"] > 0
    assert (done["breaker"], done["durable"]) == ("closed", True)
    assert (done["last_error"], done["spool_error"]) == (None, None)


def test_on_a_terminal_there_is_a_table(
    sqlite_spool: SharedSpool, relay: StartRelay, backend: Backend, fill: Fill
) -> None:
    """It shows the same, and what is wrong below it."""
    backend.default = RequireKey("another-key")
    fill(sqlite_spool, 1)
    settings = {"FORCE_COLOR": "1", "COLUMNS": "120", "GUARDAGENT_SPOOL_LEASE": "60"}
    watched = relay(sqlite_spool, "--interval", "0.05", **settings)
    assert backend.wait_for_requests(1, PATIENCE)
    while "the key is refused" not in (line := watched.lines.get(timeout=PATIENCE)):
        pass

    assert watched.end()[0] == 0
    assert "last error: HTTP 401" in line
    assert "Pending in the spool" in "".join(watched.lines.queue)


def test_without_a_terminal_there_are_plain_lines(
    sqlite_spool: SharedSpool, relay: StartRelay, backend: Backend, fill: Fill
) -> None:
    """A journal gets lines to read, and the agent's own log on the standard error."""
    backend.default = Status(500)
    fill(sqlite_spool, 7)
    plain = relay(sqlite_spool, "--interval", "0.05")
    failure = plain.complaint("Delivery to")
    while "last error: HTTP 500" not in (line := plain.lines.get(timeout=PATIENCE)):
        pass

    assert plain.end()[0] == 0
    assert " WARNING " in failure
    assert " delivered 0 (0/s) pending 7 lag " in line


def test_a_spool_that_goes_away_is_told(relay: StartRelay, backend: Backend, fill: Fill) -> None:
    """Redis dies and returns: the lines say so, without its password, and the work goes on."""
    with RedisServer(password="hush-hush") as server:
        spool = SharedSpool(server.url, "shop")
        working = relay(spool, "--json", "--interval", "0.05")
        assert working.reading()["pid"] > 0
        server.kill()
        while (away := working.reading())["spool_error"] is None:
            pass
        server.restart()
        keys = fill(spool, 5)
        came = backend.wait_for(5, PATIENCE)
        while (back := working.reading())["spool_error"] is not None:
            pass
        status, said = working.end()

    assert came
    assert status == 0
    assert backend.keys == set(keys)
    assert (away["durable"], back["durable"]) == (False, True)
    assert "Redis: " in away["spool_error"]
    output = str(away) + said + "".join(working.lines.queue)
    assert "hush-hush" not in output
    assert "Traceback" not in output
