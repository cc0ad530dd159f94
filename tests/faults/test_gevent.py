"""gevent, patched before the agent is imported, after, and never."""

from __future__ import annotations

import importlib.util
import os

import pytest

from tests.faults.scripts import Run
from tests.support.accounts import repeats
from tests.support.backend import Backend
from tests.support.breakdowns import HangBeforeHeaders

# Missing, it is skipped at a desk and missed in continuous integration.
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gevent") is None and not os.environ.get("CI"), reason="needs gevent"
)

#: gevent itself warns here and there; that is not what is asked.
FLAGS = ("-W", "default::ResourceWarning:guardagent")


@pytest.mark.parametrize(
    "how", ["before", "after", "after_start", "preloaded", "never", "exit_before"]
)
def test_greenlets_deliver(run: Run, backend: Backend, how: str) -> None:
    """Whenever the patching was done, everything is delivered, and flush and stop come back."""
    outcome = run("patched", how=how, settings={"timeout": 10.0}, flags=FLAGS).wait()

    assert outcome.status == 0, outcome.stderr
    assert len(outcome.captured) == (250 if how in ("after_start", "preloaded") else 200)
    assert set(outcome.captured) == backend.keys
    assert repeats(backend.received) == []
    assert all(line["flushed"] for line in outcome.reports if "flushed" in line)
    assert all(line["balanced"] for line in outcome.reports if "balanced" in line)
    if how != "after_start":
        # A thread that began before the patching ends in a KeyError of threading's own, whoever
        # started it: gevent has changed by then what the thread calls itself.
        assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize("how", ["before", "never"])
def test_hub_is_not_held(run: Run, backend: Backend, how: str) -> None:
    """While the backend is silent other greenlets run on."""
    backend.default = HangBeforeHeaders()
    settings = {"timeout": 20.0, "shutdown_timeout": 0.5}
    outcome = run(
        "patched", how=how, hangs=True, patience=0.5, settings=settings, flags=FLAGS
    ).wait()

    assert outcome.status == 0, outcome.stderr
    (beats,) = [line for line in outcome.reports if "longest" in line]
    assert beats["longest"] < 0.5  # a held hub would show the whole second
    assert "Traceback" not in outcome.stderr


def test_hundred_lives_under_gevent(run: Run, backend: Backend) -> None:
    """Starting and stopping again and again leaves no traceback."""
    outcome = run("patched", how="cycles_before", settings={"timeout": 10.0}, flags=FLAGS).wait()

    assert outcome.status == 0, outcome.stderr
    assert len(outcome.captured) == 300
    assert all(line["stopped"] for line in outcome.reports if "stopped" in line)
    assert set(outcome.captured) == backend.keys
    assert "Traceback" not in outcome.stderr
