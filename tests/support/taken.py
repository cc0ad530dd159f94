"""Fields as the drain meets them."""

from __future__ import annotations

from guardagent import SecurityEvent, SecurityMetric
from guardagent.fields import Fields, named, take_event, take_metric

__all__ = ["event_fields", "metric_fields"]


def event_fields(event: SecurityEvent) -> Fields:
    """Take everything out of an event and name it."""
    return named(take_event(event))


def metric_fields(metric: SecurityMetric) -> Fields:
    """Take everything out of a metric and name it."""
    return named(take_metric(metric))
