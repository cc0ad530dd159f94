"""The demonstration, played for real."""

from __future__ import annotations

import asyncio
import io
import logging
import random
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from click.testing import CliRunner
from rich.console import Console

from guardagent import ConfigError, DynamicRules, SecurityEvent, SecurityMetric
from guardagent.cli import guards
from guardagent.cli.commands import guardagent
from guardagent.cli.extras import MissingExtraError
from guardagent.cli.stage import audience, print_outcome
from guardagent.demo.outcome import Outcome
from guardagent.demo.play import Play, Scene
from guardagent.demo.probe import Latency, Probe
from guardagent.demo.serving import LoopThread
from guardagent.demo.shop import create_shop
from guardagent.demo.site import BLOCKED
from guardagent.demo.traffic import ATTACKER, Traffic, Visit, visits
from guardagent.status import Stats

if TYPE_CHECKING:
    from flask.testing import FlaskClient

_PATIENCE = 60.0


def test_it_ends_by_itself_and_balances() -> None:
    """A short run captures through an outage, loses nothing, and ends with status 0."""
    command = [sys.executable, "-W", "error", "-m", "guardagent", "demo", "--seconds", "2"]

    result = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)

    assert (result.returncode, result.stderr) == (0, "")
    rows = _rows(result.stdout)
    captured = int(rows["Captured"])
    assert captured > 20
    assert rows["Delivered"].startswith(f"{captured} (")
    assert rows["Dropped"] == "0"
    assert int(rows["Retried"].split()[0]) > 0
    assert rows["Arrived"].startswith(f"{captured}, ")
    assert rows["A capture took"].startswith("p50 ")
    assert f"Every one of {captured} captures arrived exactly once." in result.stdout
    blocked = int(rows["Rule pushed"].split("), ")[1].split()[0])
    assert blocked > 0
    assert "Every visit from the address that was blocked was turned away." in result.stdout
    acts = ("The shop is open", "A rule is pushed", "The rule is in force")
    for act in (*acts, "The collector is away", "The collector is back"):
        assert f"\n{act}: captured" in "\n" + result.stdout


def test_it_can_be_ended_early() -> None:
    """Ctrl-C in the middle ends it in order, soon, and with a status that is not 0."""
    command = [sys.executable, "-W", "error", "-m", "guardagent", "demo", "--seconds", "60"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=_PATIENCE)

    assert first.startswith("The shop is open")
    assert process.returncode == 1
    assert errors.strip() == "Aborted!"


@pytest.mark.parametrize("seconds", ["1", "601", "long"])
def test_a_wrong_length_is_refused(seconds: str) -> None:
    """It takes between two seconds and ten minutes."""
    result = CliRunner().invoke(guardagent, ["demo", "--seconds", seconds])

    assert result.exit_code == 2
    assert "--seconds" in result.output


# What it found


def _stats(**counts: Any) -> Stats:
    fields: dict[str, Any] = {field.name: 0 for field in attrs.fields(Stats)}
    return Stats(**{**fields, "captured": 3, "delivered": 3, "dropped": {"overflow": 0}, **counts})


def _outcome(**fields: Any) -> Outcome:
    found: dict[str, Any] = {
        "answers": {200: 2, 403: 1},
        "visit_failures": [],
        "keys": ["a", "b", "c"],
        "arrived": {"a": 1, "b": 2, "c": 1},
        "stats": _stats(),
        "latency": Latency(p50=5e-6, p99=90e-6, worst=0.001),
        "outage": 4.04,
        "outage_captures": 1,
        "poll_interval": 0.75,
        "rule_delay": 0.5,
        "rule_visits": 2,
        "let_in": 0,
        "blocked": 2,
        "guard_library": "",
        "found": {"penetration_attempt": 1, BLOCKED: 2},
        "seconds": 15.2,
        **fields,
    }
    return Outcome(**found)


def test_balanced_books_have_no_fault() -> None:
    """Everything arrived, one of it twice and kept once: all is well."""
    outcome = _outcome()

    assert outcome.faults() == []
    assert (outcome.dropped, outcome.repeated) == (0, 1)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"arrived": {"a": 1, "b": 1}}, "1 of 3 captured never arrived"),
        ({"arrived": dict.fromkeys("abcd", 1)}, "1 arrived that nobody captured"),
        ({"keys": ["a", "b", "c", "c"]}, "two captures had the same key"),
        ({"outage_captures": 0}, "nothing was captured while the collector was away"),
        ({"rule_delay": None}, "the rule that was pushed never came into force"),
        ({"rule_visits": 0}, "nobody came from the address that was blocked"),
        ({"blocked": 1}, "of 2 visits from a blocked address only 1 were turned away"),
        ({"let_in": 1}, "1 visits from a blocked address were let in"),
        ({"found": {BLOCKED: 2}}, "no attack was found"),
        ({"visit_failures": ["GET /: gone"]}, "1 visits failed: ['GET /: gone']"),
        (
            {"stats": _stats(delivered=2, dropped={"overflow": 1})},
            "the agent dropped some: {'overflow': 1}",
        ),
        ({"stats": _stats(delivered=2)}, "the agent's books do not balance"),
        (
            {"stats": _stats(captured=4, delivered=4)},
            "the agent captured 4 and not 3",
        ),
        ({"keys": [], "arrived": {}}, "nothing was captured"),
    ],
)
def test_each_fault_is_found(fields: dict[str, Any], fault: str) -> None:
    """Whatever does not balance is said in words."""
    faults = _outcome(**fields).faults()

    assert any(found.startswith(fault) for found in faults)


def test_a_fault_is_the_reason_of_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demonstration that fails prints its table and its reason, and ends with status 1."""
    monkeypatch.setattr(Play, "perform", lambda *_: _outcome(arrived={"a": 1, "b": 1}))

    result = CliRunner().invoke(guardagent, ["demo"])

    assert result.exit_code == 1
    assert "What happened" in result.output
    assert "Error: 1 of 3 captured never arrived" in result.output


@pytest.mark.parametrize(
    "error", [OSError("Address already in use"), ConfigError("flush_interval: given 'abc'")]
)
def test_what_it_cannot_go_on_for_is_the_reason_of_the_end(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A collector that cannot come back or a wrong variable is said, without a traceback."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Play, "perform", fail)

    result = CliRunner().invoke(guardagent, ["demo"])

    assert result.exit_code == 1
    assert f"could not go on: {error}" in result.output


# What it shows


def test_the_table_has_it_all() -> None:
    """The table tells each number with its unit."""
    console = Console(width=100, record=True, file=io.StringIO())
    print_outcome(_outcome(), console)

    rows = _rows(console.export_text())
    assert rows == {
        "Requests to the shop": "3 (2 x 200, 1 x 403)",
        "Captured": "3",
        "Delivered": "3 (0 bytes)",
        "Retried": "0 requests",
        "Dropped": "0",
        "Rule pushed": "in force 0.50 s later (polled every 0.75 s), 2 visits blocked",
        "Collector away": "4.0 s, 1 captured meanwhile",
        "Arrived": "3, 1 of them more than once",
        "A capture took": "p50 5 us, p99 90 us, at most 1000 us",
        "All in all": "15.2 s",
    }


def test_the_table_says_what_a_library_found() -> None:
    """Where a Guard library finds the attacks, its events are listed by type."""
    console = Console(width=100, record=True, file=io.StringIO())
    print_outcome(_outcome(guard_library="flaskapi-guard"), console)

    found = _rows(console.export_text())["flaskapi-guard reported"]
    assert found == "1 penetration_attempt 2 ip_blocked"


def _scenes() -> list[Scene]:
    stats = _stats(pending=2, retried=1)
    return [
        Scene("The shop is open", 0.0, 3, 1, 0, stats),
        Scene("The shop is open", 0.2, 3, 1, 0, stats),
        Scene("The collector is away", 0.4, 3, 1, 2, stats),
    ]


def test_without_a_terminal_each_act_is_a_line() -> None:
    """Lines appear when something changes, and are never wrapped."""
    console = Console(width=40, record=True, file=io.StringIO())
    with audience(console) as watching:
        for scene in _scenes():
            watching.watch(scene)

    counts = "captured 3  delivered 3  pending 2  retried 1  dropped 0"
    assert console.export_text().splitlines() == [
        f"The shop is open: {counts}  blocked 0",
        f"The collector is away: {counts}  blocked 2",
    ]


def test_on_a_terminal_there_is_a_bar() -> None:
    """The bar moves with the play and names the act."""
    console = Console(width=80, record=True, file=io.StringIO(), force_terminal=True)
    with audience(console) as watching:
        for scene in _scenes():
            watching.watch(scene)

    text = console.export_text()
    assert " 20%" in text
    assert "The collector is away" in text
    assert " 40%" in text


# Who plays


@pytest.fixture
def captured() -> list[SecurityEvent | SecurityMetric]:
    """What the shop captured."""
    return []


@pytest.fixture
def shop(captured: list[Any]) -> FlaskClient:
    """A client of the shop."""

    def capture(item: Any) -> bool:
        captured.append(item)
        return True

    return create_shop(capture).test_client()


def _types(captured: list[Any]) -> list[str]:
    return [item.event_type for item in captured if isinstance(item, SecurityEvent)]


@pytest.mark.parametrize(
    ("target", "rule"),
    [
        ("/search?q=%27%20OR%201=1%20--", "sql_injection"),
        ("/files/..%2f..%2fetc/passwd", "path_traversal"),
        ("/search?q=%3Cscript%3Ealert(1)", "xss"),
    ],
)
def test_the_shop_reports_attacks(
    shop: FlaskClient, captured: list[Any], target: str, rule: str
) -> None:
    """A hostile request is refused and reported with its pattern and its sender."""
    reply = shop.get(target, headers={"X-Forwarded-For": "203.0.113.66"})

    assert reply.status_code == 403
    reported, measured = captured
    assert (reported.event_type, reported.rule_type) == ("penetration_attempt", rule)
    assert reported.ip_address == "203.0.113.66"
    assert measured.tags["status"] == "403"


def test_the_shop_measures_ordinary_requests(shop: FlaskClient, captured: list[Any]) -> None:
    """A visitor is served, and the time it took is a metric."""
    statuses = [
        shop.get(target).status_code
        for target in ("/", "/products/7", "/search?q=boots", "/files/catalogue", "/nowhere")
    ]

    assert statuses == [200, 200, 200, 200, 404]
    assert _types(captured) == []
    assert [metric.metric_type for metric in captured] == ["response_time"] * 5
    assert [metric.tags["endpoint"] for metric in captured][-1] == "none"


def test_the_shop_reports_failed_logins(shop: FlaskClient, captured: list[Any]) -> None:
    """Each failure is reported, the sixth bans its sender, and the right password is let in."""
    wrong = [shop.post("/login", data={"password": "guess"}).status_code for _ in range(6)]
    right = shop.post("/login", data={"password": "correct horse"}).status_code

    assert (wrong, right) == ([401] * 6, 200)
    assert _types(captured) == ["authentication_failed"] * 6 + ["ip_banned"]


def test_the_shop_reports_who_hammers(shop: FlaskClient, captured: list[Any]) -> None:
    """Too many requests of one sender are throttled and reported; others are served."""
    hammer, other = {"X-Forwarded-For": "203.0.113.99"}, {"X-Forwarded-For": "198.51.100.1"}
    statuses = Counter(shop.get("/", headers=hammer).status_code for _ in range(60))

    assert statuses[429] > 0
    assert _types(captured) == ["rate_limited"] * statuses[429]
    assert shop.get("/", headers=other).status_code == 200


def test_the_shop_obeys_the_rules(captured: list[Any]) -> None:
    """Who is on the list is turned away and reported; who is not is served, and so is he before."""
    rules: list[DynamicRules] = []
    shop = create_shop(
        lambda item: not captured.append(item), lambda: rules[-1] if rules else None
    ).test_client()
    listed, other = {"X-Forwarded-For": "203.0.113.66"}, {"X-Forwarded-For": "198.51.100.1"}
    before = shop.get("/", headers=listed).status_code
    rules.append(DynamicRules.from_mapping({"ip_blacklist": ["203.0.113.66"]}))
    after = [shop.get("/", headers=sender).status_code for sender in (listed, other)]

    assert (before, after) == (200, [403, 200])
    (blocked,) = [item for item in captured if isinstance(item, SecurityEvent)]
    assert (blocked.event_type, blocked.ip_address) == (BLOCKED, "203.0.113.66")
    assert blocked.reason == "ip_blacklist: 203.0.113.66"


def test_visitors_are_ordinary_and_hostile() -> None:
    """The traffic has both, from different senders, and the same again for the same seed."""
    source = visits(random.Random(7))
    made = [next(source) for _ in range(90)]
    again = visits(random.Random(7))

    assert made == [next(again) for _ in range(90)]
    assert {visit.method for visit in made} == {"GET", "POST"}
    assert {"sqlmap/1.8", "hydra/9.5", "Mozilla/5.0"} <= {visit.agent for visit in made}


def test_other_attackers_come_when_asked_for() -> None:
    """With others, attacks go on when the attacker of the rule is turned away."""
    source = visits(random.Random(7), others=True)
    made = [next(source) for _ in range(90)]

    attackers = {visit.address for visit in made if visit.agent == "sqlmap/1.8"}
    assert ATTACKER in attackers
    assert len(attackers) > 1


def test_traffic_that_meets_nobody_is_counted() -> None:
    """A visit that fails is a failure of the demonstration, and ends no thread."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    source = iter([Visit("GET", "/", "198.51.100.1", "x")] * 4)
    traffic = Traffic(host="127.0.0.1", port=port, source=source, count=4, rate=1e6, threads=1)
    with traffic:
        for thread in traffic._threads:
            thread.join(_PATIENCE)

    assert traffic.is_over
    assert len(traffic.failures) == 4
    assert "GET /: ConnectionRefusedError" in traffic.failures[0]


def test_traffic_can_be_stopped() -> None:
    """Visitors who wait for their turn go home at once."""
    source = visits(random.Random(1))
    with Traffic(host="127.0.0.1", port=9, source=source, count=10, rate=1e-3) as traffic:
        pass

    assert traffic.is_over


def test_latencies_are_ranked() -> None:
    """Percentiles are those of the sorted captures; no captures take no time."""
    seconds = [number / 1000 for number in range(100, 0, -1)]

    assert Latency.of(seconds) == Latency(p50=0.051, p99=0.1, worst=0.1)
    assert Latency.of([]) == Latency(0.0, 0.0, 0.0)


def test_the_probe_keeps_keys_and_times() -> None:
    """Each capture is passed on, timed, and remembered by its key."""
    first = SecurityEvent(event_type="a")
    second = SecurityMetric(metric_type="block_rate", value=1.0)
    probe = Probe()

    taken = [probe.watch(lambda given: given is first, item) for item in (first, second)]

    assert taken == [True, False]
    assert probe.keys() == [first.idempotency_key, second.idempotency_key]
    assert probe.count == 2
    assert probe.types() == {"a": 1}
    assert (probe.count_of("a"), probe.count_of("b")) == (1, 0)
    assert 0 < probe.latency().p50 <= probe.latency().worst


def test_the_probe_sees_the_key_of_what_only_looks_like_an_event() -> None:
    """A bare object is captured as the event it stands for; what stands for none has no key."""
    captured: list[Any] = []
    probe = Probe()

    probe.watch(lambda given: not captured.append(given), SimpleNamespace(event_type="a"))
    probe.watch(lambda given: not captured.append(given), "nothing")

    assert probe.keys() == [captured[0].idempotency_key]
    assert captured[1] == "nothing"


def test_a_loop_runs_beside_the_play() -> None:
    """What is asked of it is done in its thread; what is left over is cancelled at the end."""
    left: list[asyncio.Task[bool]] = []

    async def begin() -> int:
        left.append(asyncio.create_task(asyncio.Event().wait()))
        return threading.get_ident()

    with LoopThread() as loop:
        ident = loop.run(begin())

    assert ident != threading.get_ident()
    assert left[0].cancelled()


# The Guard libraries; tests/contrib plays them


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library it is said what to install."""
    monkeypatch.setitem(sys.modules, "flaskapi_guard", None)

    with pytest.raises(MissingExtraError, match="run: pip install flaskapi-guard"):
        guards.load("flask")


def test_of_the_log_only_failures_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Warnings of a Guard library do not bury the show; errors are seen."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    guards.hush()
    log = logging.getLogger("guard_core")
    log.warning("Suspicious activity detected.")
    log.error("handler.send_event failed")

    assert capsys.readouterr().err == "handler.send_event failed\n"


def _rows(text: str) -> dict[str, str]:
    """Read the table back; a long cell goes on in the lines below its name."""
    rows: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("│"):
            name, value = (part.strip() for part in line.split("│")[1:3])
            last = name or [*rows][-1]
            rows[last] = f"{rows.get(last, '')} {value}".strip()
    return rows
