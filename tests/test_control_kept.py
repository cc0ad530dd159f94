"""Rules that outlive an outage and a restart: their age, the stale mark, and the kept copy."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import pytest

from guardagent import DynamicRules
from guardagent.decisions import Judge
from guardagent.errors import SpoolError, TransientError
from guardagent.ruleset import RULES_BYTES
from tests.conftest import MakeAgent
from tests.support.answers import Status
from tests.support.backend import Backend
from tests.test_control import PATIENCE, Desk, Step, document, reply, rules_reply

HOUR = 3600.0


class Shelf(dict[str, bytes]):
    """Where rules are kept; fails when told to."""

    error: Exception | None = None

    def keep(self, name: str, value: bytes) -> None:
        if self.error is not None:
            raise self.error
        self[name] = value

    def recall(self, name: str) -> bytes | None:
        if self.error is not None:
            raise self.error
        return self.get(name)


class Room(Desk):
    """A control room over a shelf; another one over the same shelf is a restart."""

    def __init__(self, *steps: Step, shelf: Shelf | None = None, **more: Any) -> None:
        self.shelf = Shelf() if shelf is None else shelf
        keeping = {"keep": self.shelf.keep, "recall": self.shelf.recall}
        super().__init__(*steps, keeping=keeping, **more)
        self.told: list[int] = []
        self.control.listen(lambda rules: self.told.append(rules.version))

    def restarted(self, *steps: Step, **more: Any) -> Room:
        return Room(*steps, shelf=self.shelf, clock=self.clock, **more)


def version(rules: DynamicRules | None) -> int | None:
    return None if rules is None else rules.version


AWAY = TransientError("away")


# -- stale ---------------------------------------------------------------------------------------


def test_rules_are_stale_while_nobody_confirms_them() -> None:
    """From the first poll that fails to the first one that does not."""
    room = Room(rules_reply(1), AWAY, rules_reply(1), reply(500), reply(304), reply(200, b"{"))

    marks = []
    for _ in range(6):
        room.poll()
        marks.append(room.control.is_stale())

    assert marks == [False, True, False, True, False, True]


def test_without_rules_nothing_is_stale() -> None:
    """There is nothing to be old."""
    room = Room(AWAY)

    assert room.poll() is None
    assert room.control.is_stale() is False
    assert room.control.rules_age() is None


@pytest.mark.parametrize(("ttl", "seconds"), [(300, 601), (3_600, 3_601)])
def test_rules_nobody_asks_for_grow_stale(ttl: int, seconds: float) -> None:
    """After two intervals, or their own time to live: a thread may hang, or have died."""
    room = Room(reply(200, document(ttl=ttl)))
    room.poll()

    room.clock.advance(seconds - 2)
    before = room.control.is_stale()
    room.clock.advance(2)

    assert before is False
    assert room.control.is_stale() is True


# -- what is new ---------------------------------------------------------------------------------


def test_the_same_body_confirms_the_rules() -> None:
    """A backend without validators sends all of them each time; nothing is read again."""
    room = Room(*[rules_reply(1)] * 3)
    first = room.poll()
    room.clock.advance(100.0)

    assert room.poll() is first
    assert room.control.rules_age() == 0.0
    assert room.told == [1]


def test_another_time_alone_is_nothing_new() -> None:
    """A backend may write the time of its answer."""
    stamps = [reply(200, document(timestamp=stamp)) for stamp in (1_800_000_000, 1_800_000_300)]
    room = Room(*stamps)

    room.poll()
    room.poll()

    assert room.told == [1]


def test_another_text_under_the_same_version_is_told() -> None:
    """Whoever keeps a copy by `on_rules` must not go on with the old one."""
    room = Room(reply(200, document(ttl=60)), reply(200, document(ttl=61)))

    room.poll()
    rules = room.poll()

    assert rules is not None
    assert rules.ttl == 61
    assert room.told == [1, 1]


def test_a_higher_version_that_has_expired_may_be_followed_by_a_lower_one() -> None:
    """An emergency's rules end by themselves, and those from before are the backend's again."""
    room = Room(rules_reply(3), dynamic_rule_interval=60.0)
    end = room.clock.now() + 150
    room.exchange.scripts["rules"].extend(
        [reply(200, document(9, expires_at=end)), rules_reply(3), rules_reply(3)]
    )

    versions = [version(room.poll()) for _ in range(4)]

    assert versions == [3, 9, 9, 3]
    assert room.told == [3, 9, 3]
    assert len(room.errors.seen) == 1


def test_rules_that_have_expired_already_are_told_to_nobody() -> None:
    """They are the backend's last word all the same: none are in force."""
    room = Room(rules_reply(1))
    room.exchange.scripts["rules"].append(
        reply(200, document(2, expires_at=room.clock.now() - HOUR))
    )

    versions = [version(room.poll()) for _ in range(2)]

    assert versions == [1, None]
    assert room.told == [1]


def test_rules_are_ready_before_they_are_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    """No request's thread compiles them."""
    compiled: list[DynamicRules] = []

    class Noting(Judge):
        def __init__(self, rules: DynamicRules) -> None:
            compiled.append(rules)
            super().__init__(rules)

    monkeypatch.setattr("guardagent.rules.Judge", Noting)
    room = Room(rules_reply(1))

    rules = room.poll()
    assert rules is not None
    rules.decide(ip="10.1.1.1")

    assert compiled == [rules]


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000 + b"]" * 100_000,
        b'{"version": 2, "x": [' + b"{}," * 100_000 + b"{}]}",
        b'{"version": 2, "ip_blacklist": [' + b'"",' * 1_000_000 + b'""]}',
        b'{"version": 2, "x": [' + b"1," * 3_000_000 + b"1]}",
        b'{"version": 2, "ttl": 1' + b"0" * 1_000_000 + b"}",
        b'{"version": 2, "message": "' + b"x" * RULES_BYTES + b'"}',
    ],
    ids=["deep", "objects", "addresses", "numbers", "digits", "large"],
)
def test_what_would_cost_too_much_is_not_read(body: bytes) -> None:
    """The rules in force stay."""
    room = Room(rules_reply(1), reply(200, body))
    kept = room.poll()

    assert room.poll() is kept
    assert [stage for stage, _ in room.errors.seen] == ["rules"]


# -- kept ----------------------------------------------------------------------------------------


def test_a_restart_begins_with_the_kept_rules() -> None:
    """While the backend is away they are in force: stale, as old as they are, and told."""
    first = Room(reply(200, document(7, ip_blacklist=["10.0.0.0/8"])))
    first.poll()
    first.clock.advance(HOUR)

    room = first.restarted(AWAY)
    rules = room.poll()

    assert rules is not None
    assert rules.version == 7
    assert not rules.decide(ip="10.1.1.1")
    assert room.control.is_stale() is True
    assert room.control.rules_age() == pytest.approx(HOUR)
    assert room.told == [7]
    assert room.control.polled.is_set()


@pytest.mark.parametrize("answer", [reply(304), rules_reply(7)], ids=["unchanged", "same"])
def test_kept_rules_are_confirmed(answer: Step) -> None:
    """By their validators or by their text, and then nobody is told twice."""
    first = Room(rules_reply(7, ETag='"7"', Last_Modified="Mon, 23 Nov 2026 05:00:00 GMT"))
    first.poll()

    room = first.restarted(answer)
    rules = room.poll()

    assert version(rules) == 7
    assert room.control.is_stale() is False
    assert room.told == [7]
    assert room.exchange.calls[0].headers == {
        "If-None-Match": '"7"',
        "If-Modified-Since": "Mon, 23 Nov 2026 05:00:00 GMT",
    }


def test_kept_rules_are_replaced() -> None:
    """By newer ones, which are kept in their place."""
    first = Room(rules_reply(7))
    first.poll()
    second = first.restarted(rules_reply(8))
    second.poll()

    third = second.restarted(AWAY)

    assert version(third.poll()) == 8
    assert second.told == [7, 8]


def test_a_lower_version_than_the_kept_one_is_refused() -> None:
    """Also after a restart an old answer does not undo a newer one."""
    first = Room(rules_reply(7))
    first.poll()

    assert version(first.restarted(rules_reply(6)).poll()) == 7


def test_kept_rules_expire() -> None:
    """While nobody ran, too."""
    first = Room()
    first.exchange.scripts["rules"].append(
        reply(200, document(7, expires_at=first.clock.now() + 60))
    )
    first.poll()
    first.clock.advance(HOUR)

    room = first.restarted(AWAY)

    assert room.poll() is None
    assert room.told == []
    assert not room.control.polled.is_set()


def test_rules_are_kept_once() -> None:
    """Not again with each answer that confirms them."""
    room = Room(rules_reply(1), reply(304), rules_reply(1), reply(200, {}), AWAY)
    room.poll()
    room.shelf.clear()

    for _ in range(4):
        room.poll()

    assert room.shelf == {}


@pytest.mark.parametrize(
    "other",
    [{"project_id": "other"}, {"endpoint": "http://127.0.0.1:8"}],
    ids=["project", "backend"],
)
def test_rules_of_another_project_are_foreign(other: dict[str, Any]) -> None:
    """Two agents may share one spool."""
    first = Room(rules_reply(7), project_id="one")
    first.poll()

    assert version(first.restarted(AWAY, project_id="one").poll()) == 7
    assert first.restarted(AWAY, **{"project_id": "one", **other}).poll() is None


def head(**facts: Any) -> bytes:
    return json.dumps({"saved_at": 1_800_000_000.0, "validators": {}, **facts}).encode() + b"\n"


GOOD = b'{"version": 7}'


@pytest.mark.parametrize(
    "kept",
    [
        b"",
        b"\n",
        b"\x00\xff",
        GOOD,
        head(),
        head() + GOOD[:-1],
        head() + b"{}",
        head() + b'{"version": "x"}',
        head() + b'{"ip_blacklist": ["host"]}',
        head() + b"[]",
        head(saved_at="soon") + GOOD,
        head(saved_at=float("nan")) + GOOD,
        head(validators=[]) + GOOD,
        head(validators=None) + GOOD,
        b"[]\n" + GOOD,
        b"[" * 100_000 + b"\n" + GOOD,
        head() + b'{"message": "' + b"x" * RULES_BYTES + b'", "version": 7}',
    ],
    ids=lambda kept: repr(kept[:50]),
)
def test_what_was_kept_is_checked(kept: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A damaged or foreign value is ignored, with one line in the log; the polling goes on."""
    first = Room(rules_reply(1))
    first.poll()
    for name in first.shelf:
        first.shelf[name] = kept
    caplog.clear()

    room = first.restarted(rules_reply(2))

    assert version(room.poll()) == 2
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("The rules that were kept cannot be used (")
    assert room.told == [2]


def test_headers_that_were_kept_are_checked() -> None:
    """What somebody else wrote into the spool does not get into a request."""
    first = Room(rules_reply(7))
    first.poll()
    bad = {"X-API-Key": "x", "If-None-Match": "a\r\nb: c", "If-Modified-Since": "x" * 9_999}
    for name in first.shelf:
        first.shelf[name] = head(validators=bad) + GOOD

    room = first.restarted(AWAY)

    assert version(room.poll()) == 7
    assert room.exchange.calls[0].headers == {}


def test_a_clock_set_back_makes_nothing_younger_than_now() -> None:
    """Rules kept in the future are taken for new ones, still stale."""
    first = Room(rules_reply(7))
    first.poll()
    for name in first.shelf:
        first.shelf[name] = head(saved_at=4e9) + GOOD

    room = first.restarted(AWAY)
    room.poll()

    assert room.control.rules_age() == 0.0
    assert room.control.is_stale() is True


def test_a_shelf_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """The rules are in force all the same, and the log says what they are not."""
    caplog.set_level(logging.WARNING, "guardagent")
    room = Room(rules_reply(1), rules_reply(2))
    room.shelf.error = SpoolError("away")

    versions = [version(room.poll()) for _ in range(2)]

    assert versions == [1, 2]
    assert room.told == [1, 2]
    assert caplog.messages == [
        "The rules that were kept cannot be used (SpoolError).",
        "The rules could not be kept (SpoolError).",
        "The rules could not be kept (SpoolError).",
    ]


def test_a_child_does_not_recall() -> None:
    """It has its parent's rules already, which may be newer."""
    parent = Room(rules_reply(1), rules_reply(2))
    parent.poll()
    old = Shelf(parent.shelf)
    parent.poll()
    child = Room(AWAY, shelf=old, clock=parent.clock)

    child.control.inherit(parent.control)

    assert version(child.poll()) == 2
    assert child.told == []
    assert child.control.is_stale() is True


# -- on the wire ---------------------------------------------------------------------------------


def test_each_poll_reads_the_key_anew(backend: Backend, make_agent: MakeAgent) -> None:
    """A key that was rotated is used by the next poll (FIELD J1)."""
    backend.default_rules = Status(200, {}, b'{"version": 1}')
    keys = iter(f"key-of-the-test-{number}" for number in range(10_000))
    agent = make_agent(api_key=lambda: next(keys), dynamic_rule_interval=0.05)
    deadline = time.monotonic() + PATIENCE
    agent.on_rules(lambda _rules: None)
    agent.start()

    while len(backend.rules_requests) < 3 and time.monotonic() < deadline:
        backend.wait_for_requests(3, 0.1)
    agent.stop()
    used = [request.headers["x-api-key"] for request in backend.rules_requests]
    assert len(set(used)) == len(used) >= 3
