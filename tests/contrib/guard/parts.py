"""A guarded application in a process of its own, in front of a collector of its own."""

from __future__ import annotations

import http.client
import json
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import attrs

from guardagent.collector import Arrival, Collector, CollectorServer, Store
from tests.support.programs import Outcome, Program

HERE = Path(__file__).parent

RULES = {
    "rule_id": "of-the-tests",
    "version": 3,
    "ip_blacklist": ["203.0.113.9"],
    "ip_ban_duration": 600,
    "blocked_user_agents": ["evilbot"],
    "blocked_cloud_providers": ["Nowhere"],
    "expires_at": "2099-01-01T00:00:00Z",
}
SCRIPT = "/?q=" + quote("<script>alert(1)</script>")
INJECTION = "/?id=" + quote("1' UNION SELECT password FROM users--")

#: What differs from one run to the next, whichever agent there is.
VOLATILE = {
    "idempotency_key", "timestamp", "response_time", "value", "correlation_id",
    "execution_time_ms",
}  # fmt: skip


@attrs.define(slots=False)
class Site:
    """What there is to see and to do from outside."""

    program: Program
    store: Store

    @cached_property
    def port(self) -> int:
        """Where it listens; waits until it does."""
        port: int = self.program.read_report()["port"]
        return port

    def ask(self, path: str = "/", *, ip: str = "10.0.0.1", agent: str = "visitor") -> int:
        """Ask for a page as somebody; return the answer's status."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30.0)
        try:
            connection.request("GET", path, headers={"X-Forwarded-For": ip, "User-Agent": agent})
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()

    def wait_for(self, event_type: str, timeout: float = 30.0) -> bool:
        """Wait for an event of this type."""
        seen = self.store.last_id
        while not any(event.type == event_type for event in self.arrivals("event")):
            if not self.store.wait(seen, timeout):
                return False
            seen = self.store.last_id
        return True

    def settle(self) -> None:
        """Wait until nothing has come for longer than the agents' flush interval."""
        while self.store.wait(self.store.last_id, 2.0):
            pass

    def arrivals(self, kind: Any) -> list[Arrival]:
        """Return what arrived."""
        return self.store.arrivals(kind=kind, limit=10_000)

    def end(self) -> Outcome:
        """Tell it to end."""
        self.program.signal(signal.SIGTERM)
        return self.program.wait()


@contextmanager
def site(name: str = "served.py", **given: Any) -> Iterator[Site]:
    """Run one of the programs until its end."""
    with Store() as store:
        collector = Collector(store)
        collector.rulebook.replace(RULES)
        with CollectorServer(app=collector) as server:
            flags = ("-W", "error::RuntimeWarning")
            settings = {"endpoint": server.url, **given}
            program = Program(HERE / name, settings, flags=flags, measured=False)
            try:
                yield Site(program, store)
            finally:
                program.signal(signal.SIGKILL)
                program.wait()


def attack(site: Site) -> list[int]:
    """Do once each thing that a Guard library reports; return the answers."""
    return [
        site.ask(SCRIPT, ip="10.0.0.2"),
        site.ask(INJECTION, ip="10.0.0.3"),
        site.ask(agent="badbot", ip="10.0.0.4"),
        site.ask(ip="198.51.100.7"),
        *[site.ask("/limited", ip="10.0.0.5") for _ in range(4)],
        *[site.ask(SCRIPT, ip="10.0.0.6") for _ in range(4)],
        site.ask(ip="203.0.113.9"),
        site.ask(agent="evilbot", ip="10.0.0.7"),
    ]


def reports(site: Site) -> Counter[str]:
    """Return the events and metrics that arrived, without what no two runs have in common."""
    arrivals = [*site.arrivals("event"), *site.arrivals("metric")]
    # Whether a pattern was slow for once is a matter of the machine.
    lasting = [one for one in arrivals if not one.type.startswith("pattern_anomaly")]
    return Counter(json.dumps(_lasting(json.loads(one.body)), sort_keys=True) for one in lasting)


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _lasting(one) for name, one in value.items() if name not in VOLATILE}
    return value


def complaints(outcome: Outcome) -> list[str]:
    """Return the lines about anything that failed."""
    words = ("ERROR", "Traceback", "failed", "never awaited", "could not")
    return [line for line in outcome.stderr.splitlines() if any(word in line for word in words)]
