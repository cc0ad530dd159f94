"""The agents that shims make live no longer than the applications they were made for."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import Client

import guardagent
from guardagent import Agent
from guardagent.contrib import asgi, flask, wsgi
from tests.conftest import quick_settings
from tests.contrib.conftest import Arrived, requests_in
from tests.support.backend import Backend

Answer = Callable[..., None]

#: Events and metrics of one refused request.
RECORDS = 4


def ask_flask(**given: Any) -> None:
    app = Flask("shop")
    agent = given.pop("agent", None)
    app.config["GUARDAGENT"] = given
    app.add_url_rule("/", "home", lambda: ("No.", 403))
    flask.GuardAgent(app, agent=agent)
    assert app.test_client().get("/").status_code == 403


def ask_wsgi(**given: Any) -> None:
    def app(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("403 Forbidden", [])
        return [b"No."]

    assert Client(wsgi.GuardAgentMiddleware(app, **given)).get("/").status_code == 403


def ask_asgi(**given: Any) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 403, "headers": []})

    async def send(message: Any) -> None:
        assert message["status"] == 403

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    asyncio.run(asgi.GuardAgentMiddleware(app, **given)(scope, None, send))  # type: ignore[arg-type]


shims = pytest.mark.parametrize(
    "ask", [ask_flask, ask_wsgi, ask_asgi], ids=["flask", "wsgi", "asgi"]
)


def end_of_agents() -> None:
    """Let go of applications, and wait for the threads that end their agents."""
    gc.collect()
    for thread in threading.enumerate():
        if thread.name == "guardagent-end":
            thread.join(60)


def threads_of_agents() -> int:
    return sum(thread.name.startswith("guardagent-") for thread in threading.enumerate())


@shims
def test_an_agent_ends_with_its_application(backend: Backend, ask: Answer) -> None:
    """What is pending when an application is gone arrives, and no thread of its agent is left.

    The first one's is the process-wide agent, which stays.
    """
    settings = {**quick_settings(backend.url), "flush_interval": 600.0, "buffer_size": 5_000}

    for _ in range(3):
        ask(**settings)
    end_of_agents()

    agent = guardagent.get_agent()
    assert agent is not None
    assert threads_of_agents() == agent.stats().threads_alive
    assert agent.flush()
    assert len(backend.keys) == 3 * RECORDS


@shims
def test_a_backend_that_is_away_is_waited_for(backend: Backend, ask: Answer) -> None:
    """Then the agent goes on for as long as it takes, and ends when all is delivered."""
    guardagent.init()
    backend.down()

    ask(**{**quick_settings(backend.url), "shutdown_timeout": 0.0})
    gc.collect()
    backend.up()
    end_of_agents()

    assert threads_of_agents() == 0
    assert len(backend.keys) == RECORDS


@shims
def test_an_agent_of_others_stays(agent: Agent, arrived: Arrived, ask: Answer) -> None:
    """A given agent goes on without the applications that are gone, and without their memory."""
    for _ in range(3):
        ask(agent=agent)
    end_of_agents()

    assert requests_in(arrived(agent, "metrics")) == 3
    assert agent._sources == []
