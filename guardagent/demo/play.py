"""The play itself: who is on the stage, the rule, the outage, and what came of it."""

from __future__ import annotations

import random
import secrets
from collections import Counter
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

import attrs

from guardagent import Agent, AgentConfig, DynamicRules, Stats
from guardagent._clock import SYSTEM_CLOCK, Bell
from guardagent.collector import Collector, CollectorServer, Store
from guardagent.demo.outcome import Outcome
from guardagent.demo.shop import Shop
from guardagent.demo.site import BLOCKED, Site
from guardagent.demo.traffic import ATTACKER, Traffic, visits

if TYPE_CHECKING:
    from guardagent.demo.probe import Probe
    from guardagent.demo.site import MakeSite

__all__ = ["Audience", "Play", "Scene"]

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
        make_site: builds the shop and its agent.
        seed: of the traffic.
    """

    def __init__(
        self, *, seconds: float, make_site: MakeSite = Shop, seed: int | None = None
    ) -> None:
        self._seconds = seconds
        self._make_site = make_site
        self._rng = random.Random(seed)
        self._bell = Bell()
        self._outage = 0.0
        self._outage_captures = 0
        self._poll_interval = min(_POLL_MAX, seconds * _POLL)
        self._rules: DynamicRules | None = None
        self._pushed_at = 0.0
        self._in_force_at: float | None = None

    def perform(self, audience: Audience) -> Outcome:
        """Play to the end and return what came of it; everything is stopped then."""
        began = SYSTEM_CLOCK.monotonic()
        key, secret = secrets.token_hex(16), secrets.token_hex(16)
        with Store() as store:
            app = Collector(store, api_keys=[key], signing_secret=secret)
            with CollectorServer(app=app) as server:
                site = self._make_site(_settings(server.url, key, secret, self._poll_interval))
                site.agent.on_rules(self._note_rules)
                stage = _Stage(store, app, server, site, audience)
                try:
                    traffic = self._with_traffic(stage)
                    self._deliver_rest(stage)
                finally:
                    site.agent.stop()
            arrived = {**store.deliveries("event"), **store.deliveries("metric")}
        statuses = self._rule_statuses(traffic)
        return Outcome(
            answers=Counter(visit.status for visit in traffic.answered),
            visit_failures=traffic.failures,
            keys=stage.probe.keys(),
            arrived=arrived,
            stats=site.agent.stats(),
            latency=stage.probe.latency(),
            outage=self._outage,
            outage_captures=self._outage_captures,
            poll_interval=self._poll_interval,
            rule_delay=self._rule_delay(),
            rule_visits=len(statuses),
            let_in=sum(status != HTTPStatus.FORBIDDEN for status in statuses),
            blocked=stage.probe.count_of(BLOCKED),
            guard_library=site.guard_library,
            found=stage.probe.types(),
            seconds=SYSTEM_CLOCK.monotonic() - began,
        )

    def _with_traffic(self, stage: _Stage) -> Traffic:
        seconds, rate = self._seconds * _TRAFFIC, stage.site.rate
        with stage.site.serving() as port:
            traffic = Traffic(
                host="127.0.0.1",
                port=port,
                # A library is to find some for as long as it lasts.
                source=visits(self._rng, others=bool(stage.site.guard_library)),
                count=min(_MAX_VISITS, int(seconds * rate)),
                rate=rate,
            )
            with traffic:
                self._until(stage, traffic, "The shop is open", seconds * _PUSHED)
                self._push_rule(stage, traffic)
                self._until(stage, traffic, "The rule is in force", seconds * _LEAVES)
                self._take_collector_away(stage, traffic, seconds)
                self._until(stage, traffic, "The collector is back", float("inf"))
        return traffic

    def _push_rule(self, stage: _Stage, traffic: Traffic) -> None:
        """Block the attacker, as `guardagent rules` would, and wait until the shop obeys."""
        self._pushed_at = SYSTEM_CLOCK.monotonic()
        stage.app.rulebook.replace({"rule_id": "demo", "ip_blacklist": [ATTACKER]})
        while self._in_force_at is None and not traffic.is_over:
            stage.show("A rule is pushed", min(1.0, traffic.elapsed / self._seconds))
            self._bell.wait(_TICK)
            # Not on the agent's thread, whose captures are refused: the shop may report it.
            if self._rules is not None and stage.site.obey(self._rules):
                self._in_force_at = SYSTEM_CLOCK.monotonic()

    def _note_rules(self, rules: DynamicRules) -> None:
        self._rules = rules
        self._bell.ring()

    def _rule_delay(self) -> float | None:
        return None if self._in_force_at is None else self._in_force_at - self._pushed_at

    def _rule_statuses(self, traffic: Traffic) -> list[int]:
        """Return how the visits were answered that the rule is about."""
        since = self._in_force_at
        return [
            visit.status
            for visit in traffic.answered
            if visit.address == ATTACKER and since is not None and visit.began_at > since
        ]

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
    site: Site
    audience: Audience

    @property
    def agent(self) -> Agent:
        return self.site.agent

    @property
    def probe(self) -> Probe:
        return self.site.agent.probe

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
