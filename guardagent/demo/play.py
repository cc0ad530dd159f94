"""The play itself: who is on the stage, when the collector leaves it, and what came of it."""

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
from guardagent.demo.shop import create_shop
from guardagent.demo.traffic import Traffic, visits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed.wsgi import WSGIApplication

__all__ = ["Audience", "Play", "Scene"]

#: Visits a second, and at most.
_RATE = 40.0
_MAX_VISITS = 20_000

#: Shares of the traffic's time at which the collector leaves and comes back.
_LEAVES, _RETURNS = 0.3, 0.7

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
    """

    name: str
    progress: float
    captured: int
    arrived: int
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

    def perform(self, audience: Audience) -> Outcome:
        """Play to the end and return what came of it; everything is stopped then."""
        began = SYSTEM_CLOCK.monotonic()
        key, secret = secrets.token_hex(16), secrets.token_hex(16)
        with Store() as store:
            app = Collector(store, api_keys=[key], signing_secret=secret)
            with CollectorServer(app=app) as server:
                agent = Agent(_settings(server.url, key, secret))
                stage = _Stage(store, server, agent, Probe(agent), audience)
                try:
                    traffic = self._with_traffic(stage)
                    self._deliver_rest(stage)
                finally:
                    agent.stop()
            arrived = {**store.deliveries("event"), **store.deliveries("metric")}
        return Outcome(
            answers=Counter(traffic.statuses),
            visit_failures=traffic.failures,
            keys=stage.probe.keys(),
            arrived=arrived,
            stats=agent.stats(),
            latency=stage.probe.latency(),
            outage=self._outage,
            outage_captures=self._outage_captures,
            seconds=SYSTEM_CLOCK.monotonic() - began,
        )

    def _with_traffic(self, stage: _Stage) -> Traffic:
        seconds = self._seconds * _TRAFFIC
        with _serving(create_shop(stage.probe.capture)) as shop:
            traffic = Traffic(
                host="127.0.0.1",
                port=shop.server_port,
                source=visits(self._rng),
                count=min(_MAX_VISITS, int(seconds * _RATE)),
                rate=_RATE,
            )
            with traffic:
                self._until(stage, traffic, "The shop is open", seconds * _LEAVES)
                self._take_collector_away(stage, traffic, seconds)
                self._until(stage, traffic, "The collector is back", float("inf"))
        return traffic

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
        self.audience.watch(Scene(name, progress, self.probe.count, arrived, stats))


def _settings(url: str, key: str, secret: str) -> AgentConfig:
    """Return settings of an agent that shows in seconds what it otherwise does in minutes."""
    return AgentConfig(
        api_key=key,
        endpoint=url,
        project_id="demo",
        install_id="guardagent-demo",  # nothing is written into anybody's home
        payload_signing_secret=secret,
        flush_interval=0.25,
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
