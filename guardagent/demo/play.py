"""The play itself: who is on the stage, the rule, the outage, and what came of it."""

from __future__ import annotations

import random
import secrets
import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import attrs
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from guardagent import Agent, AgentConfig, Stats
from guardagent._clock import SYSTEM_CLOCK, Bell
from guardagent.collector import Collector, CollectorServer, Store
from guardagent.demo.outcome import Outcome
from guardagent.demo.probe import Probe
from guardagent.demo.shop import BLOCKED, create_shop
from guardagent.demo.traffic import ATTACKER, Traffic, visits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed.wsgi import WSGIApplication

__all__ = ["Audience", "Play", "Scene"]

#: Visits a second, and at most.
_RATE = 40.0
_MAX_VISITS = 20_000

#: Shares of the traffic's time: the rule is pushed, the collector leaves and comes back.
_PUSHED, _LEAVES, _RETURNS = 0.15, 0.3, 0.7

#: Share of the whole time between two looks for rules, and the longest such time.
_POLL, _POLL_MAX = 0.05, 1.0

#: Share of the whole time that has traffic; the rest is for what is still to be delivered.
_TRAFFIC = 0.9

#: Longest wait for the rest; an agent asks a backend that was away again after some seconds.
_PATIENCE = 30.0

_TICK = 0.1


@attrs.frozen
class Scene:
    """What can be seen at one moment.

    Args:
        name: of the act.
        progress: of the whole, from 0 to 1.
        captured: so far.
        arrived: at the collector, so far.
        blocked: visits turned away for the rule, so far.
    """

    name: str
    progress: float
    captured: int
    arrived: int
    blocked: int
    stats: Stats


class Audience(Protocol):
    """Is shown every scene, some ten a second, by the thread that called `perform`."""

    def watch(self, scene: Scene) -> None:
        """Look."""
        ...


class Play:
    """A shop, its agent, its visitors and a collector, all on loopback and in this process.

    Args:
        seconds: how long it takes, some seconds for the last deliveries included.
        seed: of the traffic.
    """

    def __init__(self, *, seconds: float, seed: int | None = None) -> None:
        self._seconds = seconds
        self._rng = random.Random(seed)
        self._bell = Bell()
        self._outage = 0.0
        self._outage_captures = 0
        self._poll_interval = min(_POLL_MAX, seconds * _POLL)
        self._pushed_at = 0.0
        self._in_force_at: float | None = None

    def perform(self, audience: Audience) -> Outcome:
        """Play to the end and return what came of it; everything is stopped then."""
        began = SYSTEM_CLOCK.monotonic()
        key, secret = secrets.token_hex(16), secrets.token_hex(16)
        with Store() as store:
            app = Collector(store, api_keys=[key], signing_secret=secret)
            with CollectorServer(app=app) as server:
                agent = Agent(_settings(server.url, key, secret, self._poll_interval))
                agent.on_rules(lambda _rules: self._note_rule())
                stage = _Stage(store, app, server, agent, Probe(agent), audience)
                try:
                    traffic = self._with_traffic(stage)
                    self._deliver_rest(stage)
                finally:
                    agent.stop()
            arrived = {**store.deliveries("event"), **store.deliveries("metric")}
        return Outcome(
            answers=Counter(visit.status for visit in traffic.answered),
            visit_failures=traffic.failures,
            keys=stage.probe.keys(),
            arrived=arrived,
            stats=agent.stats(),
            latency=stage.probe.latency(),
            outage=self._outage,
            outage_captures=self._outage_captures,
            poll_interval=self._poll_interval,
            rule_delay=self._rule_delay(),
            rule_visits=self._rule_visits(traffic),
            blocked=stage.probe.count_of(BLOCKED),
            seconds=SYSTEM_CLOCK.monotonic() - began,
        )

    def _with_traffic(self, stage: _Stage) -> Traffic:
        seconds = self._seconds * _TRAFFIC
        app = create_shop(stage.probe.capture, lambda: stage.agent.rules)
        with _serving(app) as shop:
            traffic = Traffic(
                host="127.0.0.1",
                port=shop.server_port,
                source=visits(self._rng),
                count=min(_MAX_VISITS, int(seconds * _RATE)),
                rate=_RATE,
            )
            with traffic:
                self._until(stage, traffic, "The shop is open", seconds * _PUSHED)
                self._push_rule(stage, traffic)
                self._until(stage, traffic, "The rule is in force", seconds * _LEAVES)
                self._take_collector_away(stage, traffic, seconds)
                self._until(stage, traffic, "The collector is back", float("inf"))
        return traffic

    def _push_rule(self, stage: _Stage, traffic: Traffic) -> None:
        """Block the attacker, as `guardagent rules` would, and wait until the agent knows."""
        self._pushed_at = SYSTEM_CLOCK.monotonic()
        stage.app.rulebook.replace({"rule_id": "demo", "ip_blacklist": [ATTACKER]})
        while self._in_force_at is None and not traffic.is_over:
            stage.show("A rule is pushed", min(1.0, traffic.elapsed / self._seconds))
            self._bell.wait(_TICK)

    def _note_rule(self) -> None:
        self._in_force_at = SYSTEM_CLOCK.monotonic()
        self._bell.ring()

    def _rule_delay(self) -> float | None:
        return None if self._in_force_at is None else self._in_force_at - self._pushed_at

    def _rule_visits(self, traffic: Traffic) -> int:
        since = self._in_force_at
        return sum(
            visit.address == ATTACKER and since is not None and visit.began_at > since
            for visit in traffic.answered
        )

    def _take_collector_away(self, stage: _Stage, traffic: Traffic, seconds: float) -> None:
        left_at, captured = SYSTEM_CLOCK.monotonic(), stage.probe.count
        stage.server.stop()
        self._until(stage, traffic, "The collector is away", seconds * _RETURNS)
        self._outage_captures = stage.probe.count - captured
        stage.server.start()
        self._outage = SYSTEM_CLOCK.monotonic() - left_at

    def _deliver_rest(self, stage: _Stage) -> None:
        deadline = SYSTEM_CLOCK.monotonic() + _PATIENCE
        is_settled = False
        while not is_settled and SYSTEM_CLOCK.monotonic() < deadline:
            is_settled = stage.agent.flush(_TICK)
            stage.show("The rest is delivered")

    def _until(self, stage: _Stage, traffic: Traffic, name: str, elapsed: float) -> None:
        """Show scenes until the traffic has gone on for so many seconds, or is over."""
        while not traffic.is_over and traffic.elapsed < elapsed:
            stage.show(name, min(1.0, traffic.elapsed / self._seconds))
            self._bell.wait(min(_TICK, max(0.0, elapsed - traffic.elapsed)))


@attrs.frozen
class _Stage:
    """Everybody in the play."""

    store: Store
    app: Collector
    server: CollectorServer
    agent: Agent
    probe: Probe
    audience: Audience

    def show(self, name: str, progress: float | None = None) -> None:
        """Show a scene; without a progress, its progress is what has arrived."""
        arrived = self.store.count("event") + self.store.count("metric")
        stats = self.agent.stats()
        if progress is None:
            progress = _TRAFFIC + (1 - _TRAFFIC) * arrived / max(1, self.probe.count)
        blocked = self.probe.count_of(BLOCKED)
        self.audience.watch(Scene(name, progress, self.probe.count, arrived, blocked, stats))


def _settings(url: str, key: str, secret: str, poll_interval: float) -> AgentConfig:
    """Return settings of an agent that shows in seconds what it otherwise does in minutes."""
    return AgentConfig(
        api_key=key,
        endpoint=url,
        project_id="demo",
        install_id="guardagent-demo",  # nothing is written into anybody's home
        payload_signing_secret=secret,
        flush_interval=0.25,
        dynamic_rule_interval=poll_interval,
        backoff_factor=0.1,
        retry_attempts=2,
        timeout=2.0,
        proxies={"no_proxy": "127.0.0.1"},
    )


class _QuietHandler(WSGIRequestHandler):
    def log(self, *message: object) -> None:
        """Say nothing: hundreds of lines would hide what is to be seen."""


@contextmanager
def _serving(app: WSGIApplication) -> Iterator[BaseWSGIServer]:
    """Serve an application on loopback, a thread for each request."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_QuietHandler)
    thread = threading.Thread(
        target=server.serve_forever, args=(0.05,), name="guardagent-demo-shop", daemon=True
    )
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
