"""Threads whose captures are refused for a while."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from guardagent._quiet import MUTED, quiet
from tests.scripted import in_threads


class Tracing:
    """What of `opentelemetry.context` the package uses."""

    def __init__(self) -> None:
        self.current: dict[str, Any] = {}

    def set_value(self, name: str, value: object) -> dict[str, Any]:
        return {**self.current, name: value}

    def attach(self, context: dict[str, Any]) -> dict[str, Any]:
        former, self.current = self.current, context
        return former

    def detach(self, token: dict[str, Any]) -> None:
        self.current = token


@pytest.fixture
def tracing(monkeypatch: pytest.MonkeyPatch) -> Tracing:
    context = Tracing()
    monkeypatch.setitem(sys.modules, "opentelemetry.context", context)  # type: ignore[arg-type]
    return context


def test_thread_is_muted_inside_only() -> None:
    """The thread is muted while inside and free again after it."""
    with quiet():
        inside = threading.get_ident() in MUTED

    assert inside
    assert threading.get_ident() not in MUTED


def test_inner_block_does_not_end_the_outer() -> None:
    """Leaving a nested block leaves the thread muted."""
    with quiet():
        with quiet():
            pass
        still = threading.get_ident() in MUTED

    assert still
    assert threading.get_ident() not in MUTED


def test_an_exception_ends_it_too() -> None:
    """A thread is not left muted by what is raised inside."""
    with pytest.raises(KeyError), quiet():
        raise KeyError

    assert threading.get_ident() not in MUTED


def test_other_threads_are_not_muted() -> None:
    """Muting is one thread's own affair."""
    with quiet():
        (muted,) = in_threads(1, lambda _: threading.get_ident() in MUTED)

    assert muted is False


def test_tracing_is_suppressed_inside(tracing: Tracing) -> None:
    """OpenTelemetry's own key hides the agent's requests, and is taken away afterwards."""
    with quiet():
        inside = tracing.current

    assert inside == {"suppress_instrumentation": True}
    assert tracing.current == {}


def test_a_foreign_tracing_module_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A half-imported OpenTelemetry costs no batch."""
    monkeypatch.setitem(sys.modules, "opentelemetry.context", SimpleNamespace())  # type: ignore[arg-type]

    with quiet():
        inside = threading.get_ident() in MUTED

    assert inside
