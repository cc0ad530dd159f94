"""Fixtures of every test: a clean environment, a backend, agents, and no leaks."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from guardagent import Agent, AgentConfig
from tests.support.backend import Backend
from tests.support.leaks import Belongings

# A shell that runs the tests in the background has them, and so their children, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

MakeAgent = Callable[..., Agent]

#: Variables of the machine that would change where a request goes or whom it trusts.
_FOREIGN = (
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
    "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "NETRC",
)  # fmt: skip


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give each test a home of its own, and none of the machine's proxies or authorities."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in list(os.environ):
        ours = name.startswith("GUARDAGENT_") and name != "GUARDAGENT_TOX_ENV"
        if ours or name.upper() in _FOREIGN:
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def no_leaks(clean_environment: None) -> Iterator[None]:
    """Fail a test that leaves a thread or an open socket behind."""
    before = Belongings.now()
    yield
    leaks = before.leaks()
    if leaks:
        pytest.fail(f"left behind: {', '.join(leaks)}")


@pytest.fixture
def backend(no_leaks: None) -> Iterator[Backend]:
    """A backend that accepts everything until it is told otherwise."""
    with Backend() as backend:
        yield backend


@pytest.fixture
def make_agent(backend: Backend) -> Iterator[MakeAgent]:
    """Build agents that deliver to `backend` at once and fail fast; all are stopped at the end."""
    agents: list[Agent] = []

    def build(**settings: Any) -> Agent:
        agent = Agent(AgentConfig(**{**quick_settings(backend.url), **settings}))
        agents.append(agent)
        return agent

    yield build
    for agent in agents:
        agent.stop(timeout=0.5)


def quick_settings(url: str) -> dict[str, Any]:
    return {
        "api_key": "test-key-0123456789",
        "endpoint": url,
        "project_id": "tests",
        "flush_interval": 0.05,
        "retry_attempts": 2,
        "backoff_factor": 0.01,
        "timeout": 5.0,
        "shutdown_timeout": 2.0,
        "status_interval": 86_400,
        "dynamic_rule_interval": 86_400,
    }
