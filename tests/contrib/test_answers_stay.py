"""Whatever goes wrong with reporting, a request is answered as it would be without."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIHandler
from flask import Flask
from werkzeug.test import Client

from guardagent import Agent, AgentConfig
from guardagent._default import replace
from guardagent.contrib import asgi, wsgi
from guardagent.contrib.flask import GuardAgent
from tests.contrib import django_project
from tests.contrib.conftest import Arrived

django_project.set_up()

from guardagent.contrib.django import site  # noqa: E402 - needs the settings

#: Asks for a path with changes to the environment (the scope under ASGI); returns the status.
Ask = Callable[..., int]


class Broken(Agent):
    """An agent of the application's own kind, which does nothing right."""

    def capture(self, event: object) -> bool:
        raise LookupError("capture")

    def expect(self) -> bool:
        raise LookupError("expect")


@pytest.fixture
def broken() -> None:
    replace(Broken(AgentConfig(api_key="key-of-the-tests")))


def ask_flask(path: str = "/answers/403/", **environ: Any) -> int:
    app = Flask("shop")

    @app.get("/answers/403/")
    def refused() -> tuple[str, int]:
        return "No.", 403

    @app.get("/account/fail/")
    def fail() -> str:
        raise ValueError("the secret is hunter2")

    GuardAgent(app)
    return Client(app).get(path, environ_overrides=environ).status_code


def ask_django(path: str = "/answers/403/", **environ: Any) -> int:
    site.forget()
    host = {"HTTP_HOST": "shop.example"}
    answer = Client(WSGIHandler()).get(path, environ_overrides={**host, **environ})
    site.forget()
    return answer.status_code


def ask_wsgi(_path: str = "/", **environ: Any) -> int:
    def app(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("403 Forbidden", [])
        return [b"No."]

    client = Client(wsgi.GuardAgentMiddleware(app))
    return client.get("/", environ_overrides=environ).status_code


def ask_asgi(_path: str = "/", **more: Any) -> int:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 403, "headers": []})

    return serve(app, **more)[0]


def serve(app: Any, **more: Any) -> list[int]:
    statuses = []

    async def send(message: Any) -> None:
        statuses.append(message["status"])

    scope = {"type": "http", "method": "GET", "path": "/login", "headers": [], **more}
    asyncio.run(asgi.GuardAgentMiddleware(app)(scope, None, send))  # type: ignore[arg-type]
    return statuses


asks = {"flask": ask_flask, "django": ask_django, "wsgi": ask_wsgi, "asgi": ask_asgi}


@pytest.mark.parametrize("ask", asks.values(), ids=list(asks))
def test_capturing_itself_fails(broken: None, ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    """The answer is the application's, each time, and the log says once what is wrong."""
    assert [ask() for _ in range(2)] == [403, 403]
    assert "could not be reported as it is (LookupError)" in caplog.text


@pytest.mark.parametrize("ask", [ask_flask, ask_django], ids=["flask", "django"])
def test_capturing_an_exception_fails(broken: None, ask: Ask) -> None:
    """The answer to an unhandled exception stays too."""
    assert ask("/account/fail/") == 500


@pytest.mark.parametrize("ask", [ask_flask, ask_django, ask_wsgi], ids=["flask", "django", "wsgi"])
@pytest.mark.parametrize("address", [b"/run/web.sock", ("203.0.113.9", 80), 5, None])
def test_strange_addresses(agent: Agent, arrived: Arrived, ask: Ask, address: Any) -> None:
    """Whatever a WSGI server gives for an address, the answer stays, and the event comes."""
    replace(agent)

    assert ask(REMOTE_ADDR=address) == 403
    assert [event["event_type"] for event in arrived(agent)] == ["access_denied"]


@pytest.mark.parametrize(
    "more", [{"client": (b"x", 0)}, {"client": (None, 0)}, {"client": 5}, {"headers": None}]
)
def test_strange_scopes(agent: Agent, arrived: Arrived, more: dict[str, Any]) -> None:
    """Whatever an ASGI server gives, the answer stays, and the event comes."""
    replace(agent)

    assert ask_asgi(**more) == 403
    assert [event["event_type"] for event in arrived(agent)] == ["access_denied"]


def test_an_exception_stays_the_applications(agent: Agent) -> None:
    """What the server hears is what the application raised, whatever the request is like."""
    replace(agent)

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        raise ValueError("of the application")

    with pytest.raises(ValueError, match="of the application"):
        serve(app, headers=None, client=5)
