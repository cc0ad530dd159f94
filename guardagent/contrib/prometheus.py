"""The collector for prometheus-client: an agent's counters, read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator

from guardagent._default import get_agent
from guardagent.agent import Agent
from guardagent.cli.extras import MissingExtraError

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "prometheus_client":
        raise
    message = "prometheus_client is not installed; run: pip install prometheus-client"
    raise MissingExtraError(message) from error

__all__ = ["AgentCollector"]

_PREFIX = "guardagent_"
_COUNTERS = {
    "captured": "Events and metrics handed to capture, refused ones included.",
    "delivered": "Events and metrics the backend accepted.",
    "retried": "Requests sent again.",
    "bytes_sent": "Bytes of accepted request bodies, as sent.",
}
_GAUGES = {
    "pending": "Events and metrics accepted and neither delivered nor dropped yet.",
    "in_flight": "Events and metrics in the request that is being sent.",
    "spool_bytes": "Encoded bytes in the spool.",
    "threads_alive": "Running threads of the agent.",
    "durable": "1 when what is pending would survive the process.",
}
_BREAKER_STATES = ("closed", "open", "half_open")


class AgentCollector:
    """Tells `Agent.stats()` of this process: `REGISTRY.register(AgentCollector())`.

    Args:
        agent: the agent; otherwise the process-wide one, whichever it is when asked. Without any
            nothing is told.
    """

    def __init__(self, agent: Agent | None = None) -> None:
        self._agent = agent

    def collect(self) -> Iterator[Metric]:
        """Yield what the counters are now."""
        agent = self._agent or get_agent()
        if agent is None:
            return
        stats = agent.stats()
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(_PREFIX + name, text, getattr(stats, name))
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(_PREFIX + name, text, getattr(stats, name))
        if stats.last_success_age is not None:
            text = "Seconds since the backend accepted something."
            yield GaugeMetricFamily(
                f"{_PREFIX}last_success_age_seconds", text, stats.last_success_age
            )
        dropped = CounterMetricFamily(
            f"{_PREFIX}dropped", "Events and metrics lost, by reason.", labels=["reason"]
        )
        for reason, count in stats.dropped.items():
            dropped.add_metric([reason], count)
        yield dropped
        breaker = GaugeMetricFamily(
            f"{_PREFIX}breaker", "1 for the state the circuit breaker is in.", labels=["state"]
        )
        for state in _BREAKER_STATES:
            breaker.add_metric([state], int(state == stats.breaker))
        yield breaker

    def describe(self) -> Iterator[Metric]:
        """Yield nothing: registering must not depend on there being an agent yet."""
        yield from ()
