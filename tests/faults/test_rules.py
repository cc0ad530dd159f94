"""Rules under fire: swapped below sixty-four readers, and sent by a backend that means harm."""

from __future__ import annotations

import hashlib
import json
import logging
import queue
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from guardagent import Agent, DynamicRules
from guardagent.limits import RateLimiter
from tests.conftest import MakeAgent
from tests.support.answers import Answer, Status
from tests.support.backend import Backend
from tests.support.breakdowns import HugeBody
from tests.support.wire import Exchange

PATIENCE = 30.0


def sealed(version: int, **fields: Any) -> dict[str, Any]:
    """Return a document whose message is a checksum over the rest of it."""
    rng = random.Random(version)
    networks = [f"10.{rng.randrange(256)}.{rng.randrange(256)}.0/24" for _ in range(50)]
    document = {
        "rule_id": "sealed",
        "version": version,
        "ip_blacklist": networks,
        "blocked_countries": [f"{letter}{letter}" for letter in rng.sample("ABCDEFGH", 3)],
        "endpoint_rate_limits": {f"/{version}": [version, version]},
        "blocked_user_agents": [f"agent-{version}-"],
        **fields,
    }
    return {**document, "message": checksum(document)}


def checksum(document: dict[str, Any]) -> str:
    kept = {name: document[name] for name in sorted(document) if name in _SEALED}
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()


_SEALED = {
    "rule_id",
    "version",
    "ip_blacklist",
    "blocked_countries",
    "endpoint_rate_limits",
    "blocked_user_agents",
}


def is_whole(rules: DynamicRules) -> bool:
    """Tell whether every part of the rules is of one document, and so is what they decide."""
    ip = rules.ip_blacklist[-1].replace(".0/24", ".7")
    return (
        checksum(rules.to_mapping()) == rules.message
        and rules.decide(ip=ip).reason == "ip_blacklist"
        and rules.decide(user_agent=f"agent-{rules.version}-").rule == f"agent-{rules.version}-"
        and not rules.decide(country=rules.blocked_countries[0])
    )


@attrs.define(eq=False)
class Succession:
    """Serves one version after the other; each answer is the next one."""

    version: int = 0

    def play(self, exchange: Exchange) -> None:
        self.version += 1
        Status(200, {}, json.dumps(sealed(self.version)).encode()).play(exchange)


def polling(make_agent: MakeAgent, **settings: Any) -> tuple[Agent, queue.Queue[int]]:
    """Return a started agent that polls all the time, and the versions it puts in force."""
    agent = make_agent(dynamic_rule_interval=0.05, retry_attempts=0, **settings)
    versions: queue.Queue[int] = queue.Queue()
    agent.on_rules(lambda rules: versions.put(rules.version))
    agent.start()
    return agent, versions


def test_sixty_four_readers_see_whole_documents(backend: Backend, make_agent: MakeAgent) -> None:
    """While the rules are swapped below them, none sees half of one, or an older one again."""
    backend.default_rules = Succession()
    agent, versions = polling(make_agent)
    assert versions.get(timeout=PATIENCE) == 1
    over = threading.Event()
    broken: list[object] = []
    seen: list[int] = [0] * 64

    def read(number: int) -> None:
        last = 0
        while not over.is_set():
            rules = agent.rules
            if rules is None or not is_whole(rules) or rules.version < last:
                broken.append(rules)
                return
            seen[number] += rules.version != last
            last = rules.version
            over.wait(0.001)

    readers = [threading.Thread(target=read, args=(number,)) for number in range(64)]
    for reader in readers:
        reader.start()
    while not broken and versions.get(timeout=PATIENCE) < 12:
        pass
    over.set()
    for reader in readers:
        reader.join(PATIENCE)

    assert broken == []
    assert min(seen) >= 1
    assert sum(seen) > 64 * 2


def test_a_limiter_follows_the_rules(backend: Backend, make_agent: MakeAgent) -> None:
    """While requests are counted by many threads; the limit of the last document holds."""
    backend.default_rules = Succession()
    agent = make_agent(dynamic_rule_interval=0.05)
    limiter = RateLimiter()
    reached = threading.Event()

    def follow(rules: DynamicRules) -> None:
        limiter.use(rules)
        if rules.version == 3:
            reached.set()

    agent.on_rules(follow)
    agent.start()
    assert reached.wait(PATIENCE)
    agent.stop()
    rules = agent.rules

    assert rules is not None
    path = f"/{rules.version}"
    assert sum(bool(limiter.hit("10.1.1.1", path)) for _ in range(99)) == rules.version


def body(**fields: Any) -> bytes:
    return json.dumps({"rule_id": "sealed", "version": 99, **fields}).encode()


#: Expressions that would take longer than anybody has, were they ever run.
CATASTROPHIC = ["(a+)+$", "(a|a)*b", r"(\w+\s?)*x", "(.*,){11}P", ".+.+.+x", "(?:a?){30}a{30}"]

HOSTILE: dict[str, Callable[[], Answer]] = {
    "50-megabytes": lambda: HugeBody(megabytes=50),
    "addresses": lambda: Status(
        200, {}, b'{"version": 99, "ip_blacklist": [' + b'"::1",' * 10_000_000 + b'"::1"]}'
    ),
    "numbers": lambda: Status(200, {}, b'{"version": 99, "x": [' + b"1," * 4_000_000 + b"1]}"),
    "lists": lambda: Status(200, {}, b'{"version": 99, "x": [' + b"[]," * 2_500_000 + b"[]]}"),
    "depth": lambda: Status(200, {}, b'{"version": 99, "x": ' + b"[" * 4_000_000),
    "digits": lambda: Status(200, {}, b'{"version": ' + b"9" * 4_000_000 + b"}"),
    "truncated": lambda: Status(200, {}, json.dumps(sealed(99)).encode()[:-40]),
    "version-of-old": lambda: Status(200, {}, json.dumps(sealed(1)).encode()),
    "version-of-nothing": lambda: Status(200, {}, body(version=-(10**30))),
    "version-of-text": lambda: Status(200, {}, body(version="ninety")),
    **{
        f"pattern-{number}": lambda one=one: Status(  # type: ignore[misc]
            200, {}, body(suspicious_patterns=["union", one])
        )
        for number, one in enumerate(CATASTROPHIC)
    },
    "agents": lambda: Status(200, {}, body(blocked_user_agents=["(x+x+)+y"])),
}


@attrs.define(eq=False)
class Noticed:
    """Counts how often it was asked for; plays the same answer each time."""

    answer: Answer
    asked: threading.Semaphore = attrs.field(factory=lambda: threading.Semaphore(0))

    def play(self, exchange: Exchange) -> None:
        self.asked.release()
        self.answer.play(exchange)


@pytest.mark.parametrize("fault", HOSTILE)
def test_hostile_documents(
    backend: Backend, make_agent: MakeAgent, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    """The old rules stay in force and stale, with one line in the log however often it comes."""
    caplog.set_level(logging.INFO, "guardagent")
    noticed = Noticed(HOSTILE[fault]())
    backend.script_rules(Status(200, {}, json.dumps(sealed(5)).encode()))
    backend.default_rules = noticed
    agent, versions = polling(make_agent, timeout=20.0)
    assert versions.get(timeout=PATIENCE) == 5
    # The third request comes when the second answer has been dealt with.
    assert all(noticed.asked.acquire(timeout=PATIENCE) for _ in range(3))

    rules = agent.rules
    agent.stop()

    assert rules is not None
    assert is_whole(rules)
    assert rules.version == 5
    assert versions.empty()
    assert [line for line in caplog.messages if "rules" in line] == [
        "The rules could not be exchanged (RulesError)."
    ]


#: Reads hostile documents in a process of its own, and tells how much memory that took.
_READING = """
import json, resource, sys
from guardagent._clock import SYSTEM_CLOCK
from guardagent.errors import RulesError
from guardagent.ruleset import Ruleset

rules = Ruleset(name="x", fresh_for=1, keep=print, recall=lambda _: None, clock=SYSTEM_CLOCK)
room = 8 * 1024 * 1024 - 64
parts = [b"[]", b"{}", b'""', b'"::1"', b"1", b"1.5", b"[[]]", b'{"a":{}}', b"null", b'"\\\\u0416"']
documents = [
    b'{"version": 2, "%s": [' % name + (part + b",") * (room // (len(part) + 1)) + part + b"]}"
    for part in parts
    for name in (b"x", b"ip_blacklist")
]
taken = 0
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for document in documents:
    try:
        taken += rules.take(document, {}) is not None
    except RulesError:
        pass
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([taken, (after - before) * (1 if sys.platform == "darwin" else 1024)]))
"""


def test_hostile_documents_take_bounded_memory() -> None:
    """A document of the largest size that is read at all becomes no mountain of small objects."""
    ended = subprocess.run(
        [sys.executable, "-c", _READING], capture_output=True, text=True, timeout=60, check=True
    )
    taken, grown = json.loads(ended.stdout)

    assert taken == 0
    assert grown < 100 * 1024 * 1024


#: Puts documents that are hard to make ready before the rules, each as often as a backend is asked
#: in an hour and a half; within so much of the processor, or it is ended.
_MAKING = """
import json, resource, sys
from guardagent._clock import SYSTEM_CLOCK
from guardagent.errors import RulesError
from guardagent.ruleset import Ruleset

resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
letters = [chr(97 + number % 26) + chr(97 + number // 26) for number in range(249)]
hostile = [
    ["[\\x00-\\uffff]" * 70] * 60,
    ["[^\\u0100-\\uffff]" * 60] * 60,
    ["(?:" + "|".join(f"{pair}." for pair in letters) + ")" for _ in range(60)],
    ["(?:" * 19 + f"a|b.{number})" * 19 for number in range(300)],
    ["a?" * 490] * 65,
    [f"[ab]*x{number}q" for number in range(1_000)],
]
rules = Ruleset(name="x", fresh_for=1, keep=print, recall=lambda _: None, clock=SYSTEM_CLOCK)
rules.take(b'{"rule_id": "a", "version": 5}', {})
refused = 0
for name in ("suspicious_patterns", "blocked_user_agents"):
    for number, entries in enumerate(hostile):
        document = {"rule_id": "a", "version": 4, name: entries}
        for _ in range(20):
            try:
                rules.take(json.dumps(document).encode(), {})
            except RulesError:
                refused += 1
print(refused)
"""


@pytest.mark.slow
def test_hostile_documents_take_bounded_time() -> None:
    """What is hard to make ready is refused for that, or made ready once, however often it comes.

    Ten seconds of the processor for all of them here.
    """
    ended = subprocess.run(
        [sys.executable, "-c", _MAKING], capture_output=True, text=True, timeout=170, check=True
    )

    assert int(ended.stdout) == 2 * 6 * 20
