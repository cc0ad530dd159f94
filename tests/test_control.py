"""The control thread: rules that come back, and reports that go out."""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
from requests.structures import CaseInsensitiveDict

from guardagent import Agent, AgentConfig, AgentStatus, DynamicRules
from guardagent._quiet import MUTED
from guardagent.control import Control
from guardagent.errors import DeliveryError, RulesError, TransientError
from guardagent.health import Health
from guardagent.status import Callbacks, DropReason, Ledger
from guardagent.testing import ManualClock, RecordingAgent
from guardagent.transport.answers import Answer as Reply
from tests.conftest import MakeAgent, quick_settings
from tests.scripted import ManualBell, config
from tests.support.accounts import Errors, bounded, capture
from tests.support.answers import Answer, BrokenJson, Held, Status
from tests.support.backend import Backend
from tests.support.breakdowns import (
    CloseInHead,
    GzipBomb,
    HangBeforeHeaders,
    HangInBody,
    HugeBody,
    MalformedStatusLine,
    ResetBeforeAnswer,
    ResetInBody,
    ShortBody,
)
from tests.support.programs import Program
from tests.support.wire import Exchange

#: A detector of hangs; nothing takes that long.
PATIENCE = 20.0

STATUS_FIELDS = {
    "timestamp",
    "status",
    "uptime",
    "events_sent",
    "events_failed",
    "buffer_size",
    "last_flush",
    "errors",
    "dropped",
    "breaker",
    "durable",
    "spool_bytes",
    "rules_id",
    "rules_version",
    "rules_age",
    "rules_stale",
    "agent_version",
    "guard_version",
    "guard_core_version",
    "pid",
    "hostname",
}


# -- parts ---------------------------------------------------------------------------------------


def reply(status: int = 200, body: bytes | dict[str, Any] = b"", **headers: str) -> Reply:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, CaseInsensitiveDict(named), raw)


def document(version: int = 1, rule_id: str = "r", **fields: Any) -> dict[str, Any]:
    return {"rule_id": rule_id, "version": version, **fields}


def rules_reply(version: int = 1, rule_id: str = "r", **headers: str) -> Reply:
    return reply(200, document(version, rule_id), **headers)


@attrs.frozen
class Call:
    """One request as the exchange was asked for it."""

    method: str
    path: str
    body: bytes | None
    headers: Mapping[str, str]
    max_bytes: int


Step = Reply | BaseException | Callable[[], Reply]


class ScriptedExchange:
    """Answers from its scripts, one for each path; then with no rules, and with acceptance."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.scripts: dict[str, deque[Step]] = {"rules": deque(), "status": deque()}

    def __call__(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        max_bytes: int = 65_536,
    ) -> Reply:
        self.calls.append(Call(method, path, body, dict(headers or {}), max_bytes))
        script = self.scripts[path]
        step: Step = script.popleft() if script else reply(200, {})
        if isinstance(step, BaseException):
            raise step
        return step() if callable(step) else step

    def of(self, path: str) -> list[Call]:
        return [call for call in self.calls if call.path == path]


class Desk:
    """A control room with a clock to set, and everything it works with.

    Args:
        chance: what the jitter draws; 0.5 for none.
        keeping: how rules are kept: `keep` and `recall`.
    """

    def __init__(
        self,
        *rules: Step,
        status: tuple[Step, ...] = (),
        chance: float = 0.5,
        ledger: Ledger | None = None,
        clock: ManualClock | None = None,
        keeping: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.errors = Errors()
        self.config = config(on_error=self.errors, **settings)
        self.clock = ManualClock() if clock is None else clock
        self.bell = ManualBell(self.clock)
        self.ledger = ledger or Ledger()
        self.exchange = ScriptedExchange()
        self.exchange.scripts["rules"].extend(rules)
        self.exchange.scripts["status"].extend(status)
        self._health = Health(self.config, self.clock)
        self.control = Control(
            self.config,
            self.exchange,
            self.ledger,
            Callbacks(self.config.on_error),
            self.clock,
            self.bell,
            self._status,
            rng=lambda: chance,
            **(keeping or {}),
        )

    def poll(self) -> DynamicRules | None:
        """Poll, when that is due; return the rules in force."""
        self.control.want()
        self._work_until("rules")
        return self.control.rules()

    def report(self) -> dict[str, Any]:
        """Send the next report, when it is due; return it."""
        self._work_until("status")
        body = self.exchange.of("status")[-1].body
        assert body is not None
        return dict(json.loads(body))

    def _work_until(self, path: str) -> None:
        before = len(self.exchange.of(path))
        while True:
            wait = self.control.turn()
            if len(self.exchange.of(path)) > before:
                return
            assert wait is not None
            self.clock.advance(wait)

    def _status(self, dropped: Mapping[str, int]) -> AgentStatus:
        rules = self.control.rules()
        stats = self.ledger.snapshot(
            now=self.clock.monotonic(),
            pending=3,
            in_flight=0,
            breaker="closed",
            durable=False,
            spool_bytes=0,
            pid=1,
            threads_alive=3,
            rules_id=None if rules is None else rules.rule_id,
            rules_version=None if rules is None else rules.version,
            rules_age=self.control.rules_age(),
            rules_stale=self.control.is_stale(),
        )
        return self._health.report(stats, dropped)


@attrs.frozen(eq=False)
class Noted:
    """Say that the request has come, then do what `then` says."""

    then: Answer
    seen: threading.Event = attrs.field(factory=threading.Event)

    def play(self, exchange: Exchange) -> None:
        self.seen.set()
        self.then.play(exchange)


def served(version: int = 1, **headers: str) -> Status:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Status(200, named, json.dumps(document(version)).encode())


def arrivals(agent: Agent) -> queue.Queue[int]:
    """Return a queue into which the versions of new rules go."""
    versions: queue.Queue[int] = queue.Queue()
    agent.on_rules(lambda rules: versions.put(rules.version))
    return versions


# -- when to poll --------------------------------------------------------------------------------


def test_nothing_is_polled_unasked() -> None:
    """Most applications only report: until somebody asks, there are only reports."""
    desk = Desk()

    for _ in range(5):
        desk.report()

    assert desk.exchange.of("rules") == []
    assert desk.control.rules() is None
    assert desk.control.rules_age() is None


def test_the_first_poll_is_at_once() -> None:
    """Whoever asks wakes the thread, and need not wait an interval."""
    desk = Desk(rules_reply(3))

    desk.control.want()
    rung = desk.bell.wait(0)
    desk.control.turn()

    assert rung
    assert desk.exchange.calls == [Call("GET", "rules", None, {}, 8 * 1024 * 1024)]
    rules = desk.control.rules()
    assert rules is not None
    assert rules.version == 3


def test_asking_again_polls_no_earlier() -> None:
    """Reading the rules in every request of an application costs no request of ours."""
    desk = Desk(rules_reply())
    desk.poll()
    desk.bell.wait(0)

    desk.control.want()
    desk.control.turn()

    assert len(desk.exchange.of("rules")) == 1
    assert desk.bell.wait(0) is False


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 90.0), (0.5, 100.0), (1.0, 110.0)])
def test_polls_come_at_intervals(chance: float, seconds: float) -> None:
    """With 10% of jitter, so that a fleet does not poll in step."""
    desk = Desk(chance=chance, dynamic_rule_interval=100.0, status_interval=86_400.0)
    desk.poll()

    desk.poll()

    assert desk.clock.monotonic() == pytest.approx(seconds)


def test_a_failed_poll_is_repeated_at_the_next_interval() -> None:
    """The transport has retried already; the thread does not spin."""
    desk = Desk(rules_reply(1), TransientError("away"), rules_reply(2), dynamic_rule_interval=30.0)
    desk.poll()
    desk.poll()

    rules = desk.poll()

    assert (rules.version if rules else None) == 2
    assert desk.clock.monotonic() == pytest.approx(60.0)


def test_without_any_rules_a_failed_poll_is_repeated_soon() -> None:
    """After 5 seconds, then after twice as many each time, and never later than the interval."""
    desk = Desk(*[TransientError("away")] * 4, rules_reply(2), dynamic_rule_interval=30.0)
    polled_at = []
    for _ in range(5):
        desk.poll()
        polled_at.append(desk.clock.monotonic())

    assert polled_at == pytest.approx([0.0, 5.0, 15.0, 35.0, 65.0])


# -- adopting ------------------------------------------------------------------------------------


def test_a_newer_version_replaces_the_rules() -> None:
    """As one reference: what a thread holds stays whole."""
    desk = Desk(rules_reply(1), rules_reply(2))
    first = desk.poll()

    second = desk.poll()

    assert first is not None
    assert second is not None
    assert (first.version, second.version) == (1, 2)


def test_an_older_version_is_refused() -> None:
    """An answer from a stale cache does not undo a newer one."""
    desk = Desk(rules_reply(5), rules_reply(4))
    kept = desk.poll()

    assert desk.poll() is kept
    (seen,) = desk.errors.seen
    assert seen[0] == "rules"
    assert isinstance(seen[1], RulesError)
    assert str(seen[1]) == "version: given 4, taken before: 5"


def test_another_rule_id_counts_anew() -> None:
    """Versions are compared within one rule."""
    desk = Desk(rules_reply(5, "a"), rules_reply(1, "b"))
    desk.poll()

    rules = desk.poll()

    assert rules is not None
    assert (rules.rule_id, rules.version) == ("b", 1)
    assert desk.errors.seen == []


def test_an_older_version_is_refused_after_other_rules_too() -> None:
    """A cache that is behind by two documents undoes the first no more than the second."""
    desk = Desk(rules_reply(5, "a"), rules_reply(1, "b"), rules_reply(4, "a"), rules_reply(5, "a"))
    desk.poll()
    kept = desk.poll()

    assert desk.poll() is kept
    assert [str(error) for _, error in desk.errors.seen] == ["version: given 4, taken before: 5"]
    back = desk.poll()
    assert back is not None
    assert (back.rule_id, back.version) == ("a", 5)


def test_an_end_takes_a_version_back_after_other_rules_too() -> None:
    """As it does while they are in force."""
    end = "2000-01-01T00:00:00Z"
    ended = reply(200, document(5, "a", expires_at=end))
    desk = Desk(ended, rules_reply(1, "b"), rules_reply(4, "a"))
    for _ in range(2):
        desk.poll()

    back = desk.poll()

    assert back is not None
    assert (back.rule_id, back.version) == ("a", 4)
    assert desk.errors.seen == []


def test_the_versions_of_the_last_rules_are_remembered() -> None:
    """Of so many ids, whatever a backend makes up."""
    others = [rules_reply(1, f"r{number}") for number in range(16)]
    desk = Desk(rules_reply(5, "a"), *others, rules_reply(4, "a"))
    for _ in range(17):
        desk.poll()

    back = desk.poll()

    assert back is not None
    assert (back.rule_id, back.version) == ("a", 4)


def test_validators_are_sent_back() -> None:
    """As the backend wrote them, until an answer brings others or none (FIELD U1)."""
    desk = Desk(
        rules_reply(1, ETag='W/"1"', Last_Modified="Mon, 23 Nov 2026 05:00:00 GMT"),
        rules_reply(2, etag='"2"'),
        rules_reply(3, last_modified="Tue, 24 Nov 2026 05:00:00 GMT"),
        rules_reply(4),
    )
    for _ in range(5):
        desk.poll()

    assert [dict(call.headers) for call in desk.exchange.of("rules")] == [
        {},
        {"If-None-Match": 'W/"1"', "If-Modified-Since": "Mon, 23 Nov 2026 05:00:00 GMT"},
        {"If-None-Match": '"2"'},
        {"If-Modified-Since": "Tue, 24 Nov 2026 05:00:00 GMT"},
        {},
    ]


def test_validators_of_a_refused_document_are_not_kept() -> None:
    """A 304 for it would keep the rules of another document in force as fresh."""
    bad = reply(200, {"version": "x"}, ETag='"bad"')
    older = rules_reply(1, ETag='"older"')
    desk = Desk(rules_reply(2, ETag='"good"'), bad, older, reply(503, ETag='"error"'))
    for _ in range(5):
        desk.poll()

    assert [call.headers.get("If-None-Match") for call in desk.exchange.of("rules")] == [
        None,
        *['"good"'] * 4,
    ]


def test_not_modified_keeps_the_rules_fresh() -> None:
    """They are as good as new, and nobody is told of them again."""
    told: list[DynamicRules] = []
    desk = Desk(rules_reply(ETag='"1"'), reply(304))
    desk.control.listen(told.append)
    rules = desk.poll()
    desk.clock.advance(25.0)
    stale = desk.control.rules_age()

    desk.poll()

    assert stale == 25.0
    assert desk.control.rules_age() == 0.0
    assert desk.control.rules() is rules
    assert told == [rules]


@pytest.mark.parametrize(
    "bad",
    [
        *(reply(code) for code in (201, 204, 301, 400, 401, 403, 422, 429, 500, 502, 503)),
        reply(200),
        reply(200, b"{"),
        reply(200, b'{"version": 9, "ip_blacklist": ["203.0.113.9", "203.0'),
        reply(200, b"[]"),
        reply(200, b'[{"version": 9}]'),
        reply(200, b"null"),
        reply(200, b"9"),
        reply(200, b'"rules"'),
        reply(200, b"\xff\xfe"),
        reply(200, b"<html>"),
        reply(200, b"[" * 200_000),
        reply(200, {"version": 9, "ttl": "soon"}),
        TransientError("away"),
        DeliveryError("odd"),
    ],
    ids=lambda bad: str(bad)[:12] if isinstance(bad, Exception) else f"{bad.status}-{bad.body[:6]}",
)
def test_a_failure_keeps_the_last_good_rules(bad: Step) -> None:
    """They grow old, and the application is told why (FIELD U3)."""
    told: list[DynamicRules] = []
    desk = Desk(rules_reply(1), bad)
    desk.control.listen(told.append)
    rules = desk.poll()

    assert desk.poll() is rules
    assert desk.control.rules_age() == pytest.approx(300.0)
    assert [stage for stage, _ in desk.errors.seen] == ["rules"]
    assert told == [rules]


def test_a_bad_document_is_described() -> None:
    """`on_error` hears of each bad field."""
    desk = Desk(reply(200, {"version": "x", "ttl": []}))

    desk.poll()

    ((_, error),) = desk.errors.seen
    assert isinstance(error, RulesError)
    assert "version: " in str(error)
    assert "ttl: " in str(error)


@pytest.mark.parametrize(
    "none",
    [
        reply(200, {}),
        reply(200, {"success": True}),
        reply(200, {"success": True, "errors": [], "message": "none"}),
        reply(200, {"message": "none"}),
        reply(200, {"detail": "maintenance"}),
        reply(200, {"success": True, "status": "ok"}),
        reply(404, b"no such page"),
    ],
    ids=lambda none: f"{none.status}-{none.body!r}",
)
def test_no_rules(none: Reply) -> None:
    """A backend without rules is no failure, and takes back none that are in force."""
    told: list[DynamicRules] = []
    desk = Desk(none, rules_reply(), none)
    desk.control.listen(told.append)

    first = desk.poll()
    answered = desk.control.polled.is_set()
    rules = desk.poll()
    kept = desk.poll()

    assert first is None
    assert answered
    assert rules is not None
    assert kept is rules
    assert told == [rules]
    assert desk.errors.seen == []


@pytest.mark.parametrize(
    ("answer", "is_answered"),
    [
        (rules_reply(), True),
        (reply(304), True),
        (reply(200, {}), True),
        (reply(404), True),
        (reply(500), False),
        (reply(200, b"{"), False),
        (TransientError("away"), False),
    ],
    ids=["rules", "unchanged", "none", "unknown", "error", "broken", "away"],
)
def test_a_poll_that_was_answered(answer: Step, is_answered: bool) -> None:
    """Only then does whoever waits for the first rules know where he is."""
    desk = Desk(answer)

    desk.poll()

    assert desk.control.polled.is_set() is is_answered


def test_rules_expire_at_their_time() -> None:
    """Not before, and without an answer (FIELD U6)."""
    desk = Desk(dynamic_rule_interval=86_400.0)
    expires_at = desk.clock.now() + 50.0
    desk.exchange.scripts["rules"].append(reply(200, document(expires_at=expires_at)))
    desk.control.want()
    desk.control.turn()

    desk.clock.advance(49.0)
    before = desk.control.rules()
    desk.clock.advance(1.0)
    after = desk.control.rules()

    assert before is not None
    assert after is None


def test_expired_rules_can_be_followed_by_newer_ones() -> None:
    """Or by the same ones with another time to live."""
    desk = Desk()
    now = desk.clock.now()
    desk.exchange.scripts["rules"].extend(
        [
            reply(200, document(1, expires_at=now - 1)),
            reply(200, document(1, expires_at=now + 86_400)),
        ]
    )

    assert desk.poll() is None
    assert desk.poll() is not None


# -- callbacks -----------------------------------------------------------------------------------


def test_listeners_hear_of_new_rules_only() -> None:
    """Of another rule or a higher version, not of the same ones again."""
    told: list[tuple[str, int]] = []
    desk = Desk(rules_reply(1, "a"), rules_reply(1, "a"), rules_reply(2, "a"), rules_reply(1, "b"))
    desk.control.listen(lambda rules: told.append((rules.rule_id, rules.version)))

    for _ in range(5):
        desk.poll()

    assert told == [("a", 1), ("a", 2), ("b", 1)]


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_a_failing_listener_disturbs_no_other(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named in the log; the rules are in force all the same."""
    told: list[str] = []

    def fail(rules: DynamicRules) -> None:
        told.append("failing")
        raise error

    desk = Desk(rules_reply(1), rules_reply(2))
    desk.control.listen(lambda _rules: told.append("first"))
    desk.control.listen(fail)
    desk.control.listen(lambda _rules: told.append("last"))

    first, second = desk.poll(), desk.poll()

    assert None not in (first, second)
    assert told == ["first", "failing", "last"] * 2
    assert desk.errors.seen == []
    assert f"The callback on_rules raised {type(error).__name__}." in caplog.messages


def test_a_failing_on_error_disturbs_nothing() -> None:
    """The next poll comes as ever."""

    def fail(stage: str, error: BaseException, context: object) -> None:
        raise RuntimeError

    desk = Desk(reply(500), rules_reply())
    desk.control._callbacks = Callbacks(fail)

    desk.poll()

    assert desk.poll() is not None


def test_a_listener_finds_its_rules_in_force() -> None:
    """And may ask for anything, register others included."""
    desk = Desk(rules_reply(1), rules_reply(2))
    found: list[object] = []

    def look(rules: DynamicRules) -> None:
        found.append(desk.control.rules() is rules)
        found.append(desk.control.polled.is_set())
        if rules.version == 1:
            desk.control.listen(lambda later: found.append(later.version))

    desk.control.listen(look)
    desk.poll()
    desk.poll()

    assert found == [True, True, True, True, 2]


def test_the_thread_is_muted_while_it_works() -> None:
    """What a listener or the request logs is not captured by the agent itself."""
    muted: list[bool] = []

    def answer() -> Reply:
        muted.append(threading.get_ident() in MUTED)
        return rules_reply()

    desk = Desk(answer)
    desk.control.listen(lambda _rules: muted.append(threading.get_ident() in MUTED))
    desk.poll()

    assert muted == [True, True]
    assert threading.get_ident() not in MUTED


# -- saying so -----------------------------------------------------------------------------------


def test_a_streak_of_failures_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """One line when it begins and one when it ends; `on_error` hears of each (FIELD O4)."""
    caplog.set_level(logging.INFO, "guardagent.control")
    desk = Desk(reply(500), reply(200, b"{"), TransientError("away"), rules_reply(), reply(500))

    for _ in range(4):
        desk.poll()
    streak = list(caplog.messages)
    desk.poll()

    assert streak == [
        "The rules could not be exchanged (DeliveryError).",
        "The rules can be exchanged again.",
    ]
    assert caplog.messages[2:] == ["The rules could not be exchanged (DeliveryError)."]
    assert [stage for stage, _ in desk.errors.seen] == ["rules"] * 4


def test_rules_and_reports_fail_apart(caplog: pytest.LogCaptureFixture) -> None:
    """Each has a streak of its own."""
    desk = Desk(reply(500), status=(reply(500),))

    desk.poll()
    desk.report()

    assert [message.partition(" (")[0] for message in caplog.messages] == [
        "The rules could not be exchanged",
        "The status could not be exchanged",
    ]
    assert [stage for stage, _ in desk.errors.seen] == ["rules", "status"]


def test_a_stop_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    """The log does not complain of a request that the agent itself cut off."""
    desk = Desk(TransientError("interrupted"))
    desk.control.is_closing = True

    desk.poll()

    assert caplog.messages == []


def test_an_unforeseen_error_comes_out() -> None:
    """The loop counts it and goes on; the next poll is an interval away all the same."""
    desk = Desk(ZeroDivisionError())
    desk.control.want()

    with pytest.raises(ZeroDivisionError):
        desk.control.turn()
    wait = desk.control.turn()

    assert wait is not None
    assert wait > 50.0
    assert threading.get_ident() not in MUTED


# -- waiting -------------------------------------------------------------------------------------


def test_a_pause_lasts_as_long_as_asked() -> None:
    """Also when somebody rings in between."""
    desk = Desk()
    desk.bell.ring()

    assert desk.control.pause(12.0) is True
    assert desk.clock.monotonic() == pytest.approx(12.0)


def test_a_stop_ends_a_pause() -> None:
    """Before it begins and while it lasts."""
    desk = Desk()

    class Closing(ManualBell):
        def wait(self, timeout: float | None = None) -> bool:
            desk.control.is_closing = True
            return True

    desk.control._bell = Closing(desk.clock)

    assert desk.control.pause(60.0) is False
    assert desk.control.pause(60.0) is False
    assert desk.clock.monotonic() == 0.0


# -- reports -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "times"),
    [(300.0, [60.0, 360.0, 660.0]), (60.0, [60.0, 120.0, 180.0]), (20.0, [20.0, 40.0, 60.0])],
)
def test_reports_come_at_intervals(interval: float, times: list[float]) -> None:
    """The first soon, to tell of agents that do not live for long."""
    desk = Desk(status_interval=interval)
    seen = []

    for _ in times:
        desk.report()
        seen.append(desk.clock.monotonic())

    assert seen == pytest.approx(times)


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 54.0), (1.0, 66.0)])
def test_reports_are_spread(chance: float, seconds: float) -> None:
    """A fleet that started together does not report together."""
    desk = Desk(chance=chance)

    assert desk.control.turn() == pytest.approx(seconds)


def test_a_report_has_the_fields_of_the_protocol() -> None:
    """Those of WIRE.md 3, and what else is known."""
    desk = Desk(rules_reply(7), guard_version="7.0.0", guard_core_version="3.1.0")
    desk.ledger.delivered.add(95)
    desk.ledger.drop("overflow", 5)
    desk.ledger.last_success_at = 0.0
    desk.poll()

    report = desk.report()

    assert set(report) == STATUS_FIELDS
    assert report["timestamp"] == "2027-01-15T08:01:00.000000+00:00"
    assert report["status"] == "healthy"
    assert report["uptime"] == 60.0
    assert (report["events_sent"], report["events_failed"], report["buffer_size"]) == (95, 5, 3)
    assert report["last_flush"] == "2027-01-15T08:00:00.000000+00:00"
    assert report["errors"] == []
    assert report["dropped"] == {"overflow": 5}
    assert (report["rules_version"], report["rules_age"]) == (7, 60.0)
    assert (report["guard_version"], report["guard_core_version"]) == ("7.0.0", "3.1.0")
    (call,) = desk.exchange.of("status")
    assert (call.method, call.path, call.headers) == ("POST", "status", {})


def test_losses_are_told_once() -> None:
    """Each report brings those since the last one that was accepted."""
    desk = Desk()
    desk.ledger.drop("overflow", 5)
    first = desk.report()
    desk.ledger.drop("overflow", 2)
    desk.ledger.drop("expired", 1)
    second = desk.report()
    third = desk.report()

    assert [report["dropped"] for report in (first, second, third)] == [
        {"overflow": 5},
        {"overflow": 2, "expired": 1},
        {},
    ]
    assert third["events_failed"] == 8


@pytest.mark.parametrize(
    "refusal",
    [
        reply(304),
        reply(404),
        reply(401),
        reply(500),
        reply(200, {"success": False}),
        reply(200, {"errors": ["status: unknown"]}),
        TransientError("away"),
    ],
    ids=lambda step: (
        repr(step)[:20] if isinstance(step, Exception) else f"{step.status}-{step.body!r}"
    ),
)
def test_losses_are_told_until_a_report_is_accepted(refusal: Step) -> None:
    """A report that did not get through takes no loss off the account."""
    desk = Desk(status=(refusal,))
    desk.ledger.drop("rejected", 4)
    lost = desk.report()
    unreported = desk.control.unreported().get("rejected", 0)

    again = desk.report()

    assert lost["dropped"] == again["dropped"] == {"rejected": 4}
    assert unreported == 4
    assert desk.control.unreported().get("rejected", 0) == 0
    assert [stage for stage, _ in desk.errors.seen] == ["status"]


@pytest.mark.parametrize(
    "acceptance",
    [
        reply(200, {"success": True}),
        reply(200, {"errors": []}),
        reply(201),
        reply(204),
        reply(200, b"ok"),
        reply(200, b"[]"),
        reply(200, b'{"success": tr'),
    ],
    ids=lambda answer: f"{answer.status}-{answer.body!r}",
)
def test_any_2xx_accepts_a_report(acceptance: Reply) -> None:
    """Unless it says otherwise; broken JSON says nothing."""
    desk = Desk(status=(acceptance,))
    desk.ledger.drop("rejected", 4)

    desk.report()

    assert desk.control.unreported().get("rejected", 0) == 0
    assert desk.errors.seen == []


class BusyLedger(Ledger):
    """Another thread loses an event whenever somebody has just looked."""

    def losses(self) -> dict[DropReason, int]:
        losses = super().losses()
        self.drop("overflow")
        return losses


def test_a_loss_in_the_middle_of_a_report_is_told_once() -> None:
    """It belongs to this report or to the next, not to both."""
    desk = Desk(ledger=BusyLedger())

    told = sum(desk.report()["dropped"].get("overflow", 0) for _ in range(5))

    assert told <= desk.ledger.dropped["overflow"].value
    assert (
        told + desk.control.unreported().get("overflow", 0) <= desk.ledger.dropped["overflow"].value
    )


def test_a_slow_poll_does_not_starve_the_report() -> None:
    """A backend that hangs longer than the interval still hears how the agent is."""
    desk = Desk(dynamic_rule_interval=60.0, status_interval=60.0)

    def hang() -> Reply:
        desk.clock.advance(127.0)
        raise TransientError("away")

    desk.exchange.scripts["rules"].extend([hang] * 6)
    desk.control.want()

    for _ in range(6):
        desk.control.turn()

    assert len(desk.exchange.of("status")) >= 2
    assert len(desk.exchange.of("rules")) >= 2


# -- on the wire ---------------------------------------------------------------------------------


def test_an_agent_that_only_reports_asks_for_no_rules(
    backend: Backend, make_agent: MakeAgent
) -> None:
    """No request of its life is a poll, and no header says otherwise."""
    agent = make_agent(dynamic_rule_interval=0.05)

    with agent:
        capture(agent, 3)
        assert agent.flush()
        assert agent.status().rules_version is None

    assert backend.rules_requests == []
    assert len(backend.requests) == 1


def test_a_poll_on_the_wire(backend: Backend, make_agent: MakeAgent) -> None:
    """A GET without body, query or signature, with the headers of every request (WIRE.md 1)."""
    backend.script_rules(served(3))
    agent = make_agent(payload_signing_secret="s3cret", install_id="host-1")

    rules = agent.wait_for_rules(PATIENCE)

    assert rules is not None
    assert rules.version == 3
    (request,) = backend.rules_requests
    assert (request.method, request.target, request.raw) == ("GET", "/api/v1/rules", b"")
    assert request.headers["x-api-key"] == "test-key-0123456789"
    assert request.headers["x-project-id"] == "tests"
    assert request.headers["x-agent-install-id"] == "host-1"
    assert "x-payload-signature" not in request.headers
    assert "if-none-match" not in request.headers


def test_wait_for_rules_starts_the_agent(backend: Backend, make_agent: MakeAgent) -> None:
    """And returns None when the backend has none."""
    agent = make_agent()

    assert bounded(lambda: (agent.wait_for_rules(PATIENCE),)) == (None,)
    assert len(backend.rules_requests) == 1


def test_wait_for_rules_gives_up(backend: Backend, make_agent: MakeAgent) -> None:
    """A backend that does not answer is waited for no longer than asked."""
    backend.default_rules = HangBeforeHeaders()
    agent = make_agent(timeout=30.0)

    assert bounded(lambda: (agent.wait_for_rules(0.05),)) == (None,)
    assert bounded(lambda: (agent.wait_for_rules(-1.0),)) == (None,)


def test_rules_asked_for_before_the_start(backend: Backend, make_agent: MakeAgent) -> None:
    """The polling begins once the agent is started."""
    noted = Noted(served())
    backend.script_rules(noted)
    agent = make_agent()
    early = agent.rules

    agent.start()

    assert early is None
    assert noted.seen.wait(5.0)


def test_rules_asked_for_after_the_start(backend: Backend, make_agent: MakeAgent) -> None:
    """The same for an agent that has long been running."""
    noted = Noted(served())
    backend.script_rules(noted)
    agent = make_agent()
    agent.start()

    assert agent.rules is None
    assert noted.seen.wait(5.0)


@pytest.mark.parametrize("is_started", [False, True])
def test_a_listener_is_reason_enough_to_poll(
    backend: Backend, make_agent: MakeAgent, is_started: bool
) -> None:
    """Whether it comes before or after the start; it is called once."""
    backend.default_rules = served(4)
    agent = make_agent(dynamic_rule_interval=0.05)
    if is_started:
        agent.start()
    versions = arrivals(agent)
    agent.start()

    assert versions.get(timeout=PATIENCE) == 4
    agent.stop()
    assert versions.empty()


def test_unchanged_rules_on_the_wire(backend: Backend, make_agent: MakeAgent) -> None:
    """The tag goes back as it came, and 304 keeps the rules."""
    backend.script_rules(
        served(1, ETag='W/"7 a"', Last_Modified="Mon, 23 Nov 2026 05:00:00 GMT"), Status(304)
    )
    backend.default_rules = served(2)
    agent = make_agent(dynamic_rule_interval=0.05)
    versions = arrivals(agent)
    agent.start()

    assert [versions.get(timeout=PATIENCE), versions.get(timeout=PATIENCE)] == [1, 2]
    _, second, third, *_ = backend.rules_requests
    for request in (second, third):
        assert request.headers["if-none-match"] == 'W/"7 a"'
        assert request.headers["if-modified-since"] == "Mon, 23 Nov 2026 05:00:00 GMT"


@pytest.mark.parametrize(
    "fault",
    [
        Status(401),
        Status(404),
        Status(429, {"Retry-After": "1"}),
        Status(500),
        Status(200, {}, b""),
        Status(200, {}, b'{"version": "nine"}'),
        Status(302, {"Location": "http://127.0.0.1:9/"}),
        BrokenJson(),
        ShortBody(),
        HugeBody(megabytes=9),
        GzipBomb(megabytes=16),
        HangBeforeHeaders(),
        HangInBody(),
        ResetBeforeAnswer(),
        ResetInBody(),
        CloseInHead(),
        MalformedStatusLine(),
    ],
    ids=repr,
)
def test_faults_on_the_wire_keep_the_rules(
    backend: Backend, make_agent: MakeAgent, fault: Answer
) -> None:
    """The last good rules stay in force until the backend is well and has better ones."""
    held = Held(served(2))
    recovery = Noted(held)
    backend.script_rules(served(1), fault, recovery)
    backend.default_rules = served(2)
    agent = make_agent(dynamic_rule_interval=0.05, retry_attempts=0, timeout=0.3)
    versions = arrivals(agent)
    agent.start()

    assert versions.get(timeout=PATIENCE) == 1
    assert recovery.seen.wait(PATIENCE)
    rules = agent.rules
    held.let_go()
    assert rules is not None
    assert rules.version == 1
    assert versions.get(timeout=PATIENCE) == 2


def test_rules_of_megabytes(backend: Backend, make_agent: MakeAgent) -> None:
    """A document of 100,000 addresses is an ordinary one."""
    addresses = [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(100_000)]
    body = json.dumps({"version": 2, "ip_blacklist": addresses}).encode()
    backend.script_rules(Status(200, {}, body))
    agent = make_agent(timeout=20.0)

    rules = agent.wait_for_rules(PATIENCE)

    assert rules is not None
    assert rules.ip_blacklist == addresses


def test_a_report_on_the_wire(backend: Backend, make_agent: MakeAgent) -> None:
    """What `status()` says is what the backend hears; signed like every POST."""
    noted = Noted(Status(200, {}, b'{"success": true}'))
    backend.script_status(noted)
    agent = make_agent(status_interval=0.1, payload_signing_secret="s3cret", guard_version="7.0")
    agent.start()

    assert noted.seen.wait(PATIENCE)
    report = backend.status_requests[0]
    assert set(report.document) == STATUS_FIELDS
    assert report.document["status"] == "healthy"
    assert report.document["guard_version"] == "7.0"
    assert report.document["pid"] == agent.stats().pid
    assert "x-payload-signature" in report.headers


def test_a_listener_holds_up_nobody(backend: Backend, make_agent: MakeAgent) -> None:
    """While it hangs, every other call of the agent works: it is called outside of all locks."""
    backend.default_rules = served(1)
    agent = make_agent()
    entered, leave = threading.Event(), threading.Event()

    def hang(_rules: DynamicRules) -> None:
        entered.set()
        leave.wait(PATIENCE)

    def register() -> bool:
        agent.on_rules(lambda _rules: None)
        return True

    agent.on_rules(hang)
    agent.start()
    assert entered.wait(PATIENCE)
    try:
        rules = bounded(lambda: agent.rules)
        bounded(lambda: capture(agent, 2))
        flushed = bounded(agent.flush)
        bounded(register)
        status = bounded(agent.status)
        waited = bounded(lambda: agent.wait_for_rules(1.0))
    finally:
        leave.set()

    assert flushed
    assert rules is waited
    assert status.rules_version == 1


def test_a_listener_may_stop_the_agent(backend: Backend, make_agent: MakeAgent) -> None:
    """Its own thread is not waited for."""
    backend.default_rules = served(1)
    agent = make_agent()
    stopped: queue.Queue[bool] = queue.Queue()
    agent.on_rules(lambda _rules: stopped.put(agent.stop(timeout=1.0)))
    agent.start()

    assert stopped.get(timeout=PATIENCE) is True


# -- the end -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [HangBeforeHeaders(), HangInBody(), Status(503, {"Retry-After": "120"}), Status(429)],
    ids=["hangs", "hangs-in-body", "asks-for-patience", "busy"],
)
def test_a_stop_ends_a_poll(backend: Backend, make_agent: MakeAgent, answer: Answer) -> None:
    """However long the poll or the wait for its retry would take."""
    noted = Noted(answer)
    backend.default_rules = noted
    agent = make_agent(timeout=120.0, backoff_factor=100.0, retry_attempts=3)
    agent.on_rules(lambda _rules: None)
    agent.start()
    assert noted.seen.wait(PATIENCE)

    assert bounded(lambda: agent.stop(timeout=1.0)) is True
    assert agent.stats().threads_alive == 0
    assert len(backend.rules_requests) == 1


def test_a_stop_tells_no_error_of_its_own(backend: Backend, make_agent: MakeAgent) -> None:
    """A poll that the agent itself cut off is no failure of the backend."""
    noted = Noted(HangBeforeHeaders())
    backend.default_rules = noted
    errors = Errors()
    agent = make_agent(timeout=120.0, on_error=errors)
    agent.on_rules(lambda _rules: None)
    agent.start()
    assert noted.seen.wait(PATIENCE)

    bounded(lambda: (agent.stop(timeout=1.0),))

    assert errors.seen == []


def test_rules_of_a_stopped_agent(backend: Backend, make_agent: MakeAgent) -> None:
    """The last good ones are still told; nothing is polled any more."""
    backend.default_rules = served(1)
    agent = make_agent(dynamic_rule_interval=0.05)
    agent.wait_for_rules(PATIENCE)
    agent.stop()
    polls = len(backend.rules_requests)

    rules = agent.rules
    agent.on_rules(lambda _rules: None)
    agent.start()

    assert rules is not None
    assert agent.stats().threads_alive == 0
    assert len(backend.rules_requests) == polls


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_stop_ends_the_wait_for_rules(backend: Backend, make_agent: MakeAgent, when: str) -> None:
    """There will be none any more."""
    noted = Noted(HangBeforeHeaders())
    backend.default_rules = noted
    agent = make_agent(timeout=120.0)
    if when == "before":
        agent.stop()

        assert bounded(lambda: (agent.wait_for_rules(30.0),), 5.0) == (None,)
    else:
        results: queue.Queue[object] = queue.Queue()
        thread = threading.Thread(
            target=lambda: results.put(agent.wait_for_rules(30.0)), daemon=True
        )
        thread.start()
        assert noted.seen.wait(PATIENCE)
        agent.stop(timeout=1.0)

        thread.join(5.0)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    "make",
    [lambda: Agent(AgentConfig(api_key=None)), RecordingAgent],
    ids=["disabled", "recording"],
)
def test_an_agent_without_a_backend_has_no_rules(make: Callable[[], Agent]) -> None:
    """Asking is harmless, and nobody waits."""
    agent = make()
    told: list[DynamicRules] = []
    agent.on_rules(told.append)

    assert agent.rules is None
    assert bounded(lambda: (agent.wait_for_rules(60.0),)) == (None,)
    assert (agent.status().rules_version, agent.status().rules_age) == (None, None)
    assert told == []
    assert agent.stop()


# -- forks ---------------------------------------------------------------------------------------

#: Asks for rules, forks, and asks again in the child; each report is a line of JSON.
_FORKING = """
import ctypes, json, os, sys, threading
from guardagent import Agent, AgentConfig

arguments = json.loads(sys.argv[1])
how = arguments["how"]
told = []
newer = threading.Event()


def say(**facts):
    print(json.dumps(facts), flush=True)


def listen(rules):
    told.append(rules.version)


def wait(rules):
    if rules.version == 2:
        newer.set()


agent = Agent(AgentConfig(**arguments["settings"]))
if how == "listens":
    agent.on_rules(listen)
say(parent=agent.wait_for_rules(20.0).version)
child = ctypes.PyDLL(None).fork() if how == "raw" else os.fork()
if child:
    os.waitpid(child, 0)
    say(after=agent.rules.version, stopped=agent.stop())
else:
    del told[:]
    if how == "captures":
        agent.capture({"event_type": "x"})
        say(flushed=agent.flush())
    first = agent.rules
    if how == "starts":
        agent.start()
    elif how == "raw":
        agent.on_rules(listen)
    second = agent.rules
    say(inherited=[rules and rules.version for rules in (first, second)])
    sys.stdin.readline()
    agent.on_rules(wait)
    if agent.rules.version != 2:
        newer.wait(20.0)
    say(child=agent.rules.version, told=told, stopped=agent.stop())
    os._exit(0)
"""


@pytest.mark.parametrize("how", ["reads", "starts", "captures", "listens", "raw"])
def test_a_child_polls_anew(backend: Backend, tmp_path: Path, how: str) -> None:
    """Its parent's thread is not there to do it; until it is answered the parent's rules hold."""
    held = Held(served(2))
    noted = Noted(held)
    backend.script_rules(served(1), noted)
    script = tmp_path / "forking.py"
    script.write_text(_FORKING)
    settings = {**quick_settings(backend.url), "timeout": 20.0}
    flags = ("-W", "error", "-W", "ignore:This process:DeprecationWarning")

    program = Program(script, {"how": how, "settings": settings}, flags=flags)
    reports = [program.read_report() for _ in range(3 if how == "captures" else 2)]
    is_polled = noted.seen.wait(5.0)
    held.let_go()
    program.tell()
    outcome = program.wait()

    facts = {name: value for line in [*reports, *outcome.reports] for name, value in line.items()}
    assert is_polled, outcome
    assert (outcome.status, outcome.stderr) == (0, "")
    assert (facts["parent"], facts["after"], facts["child"]) == (1, 1, 2)
    assert facts["inherited"] == [1, 1]
    assert facts["told"] == ([2] if how in ("listens", "raw") else [])
    assert facts["stopped"] is True
    assert len(backend.rules_requests) == 2


def test_inherited_rules() -> None:
    """They are confirmed with the parent's validators, and those in force are told to nobody."""
    parent, child = Desk(rules_reply(ETag='"1"')), Desk(reply(304))
    told: list[DynamicRules] = []
    child.control.listen(told.append)
    rules = parent.poll()

    child.control.inherit(parent.control)
    before = child.control.rules()
    after = child.poll()

    assert rules is not None
    assert before is after is rules
    assert child.exchange.of("rules")[0].headers == {"If-None-Match": '"1"'}
    assert told == []
