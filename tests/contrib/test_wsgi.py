"""The WSGI middleware, around bare, Bottle, Falcon and Flask applications."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.handlers import SimpleHandler
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import bottle
import falcon
import pytest
from flask import Flask
from werkzeug.test import Client

import guardagent
from guardagent import Agent, ConfigError
from guardagent.contrib.wsgi import GuardAgentMiddleware
from tests.conftest import quick_settings
from tests.contrib.conftest import Arrived, requests_in
from tests.support.backend import Backend

Start = Callable[..., Any]
PLAIN = [("Content-Type", "text/plain")]


def forbidding(_environ: dict[str, Any], start_response: Start) -> list[bytes]:
    start_response("403 Forbidden", PLAIN)
    return [b"No."]


def test_refused_requests_are_events(agent: Agent, arrived: Arrived) -> None:
    """An answer with one of the statuses to capture is an event that says who asked for what."""
    app = GuardAgentMiddleware(forbidding, agent=agent)

    answer = Client(validator(app)).get(
        "/caf\N{LATIN SMALL LETTER E WITH ACUTE}?q=secret",
        headers={"User-Agent": "Mozilla/5.0", "X-Forwarded-For": "6.6.6.6"},
        environ_overrides={"REMOTE_ADDR": "203.0.113.9", "SCRIPT_NAME": "/shop"},
    )

    assert (answer.status_code, answer.text) == (403, "No.")
    answer.close()
    (event,) = arrived(agent)
    assert event["event_type"] == "access_denied"
    assert event["ip_address"] == "203.0.113.9"
    assert event["endpoint"] == "/shop/caf\N{LATIN SMALL LETTER E WITH ACUTE}"
    assert event["user_agent"] == "Mozilla/5.0"
    assert (event["method"], event["status_code"]) == ("GET", 403)
    assert event["metadata"] == {}
    assert event["handler_name"] == "guardagent.contrib.wsgi"


def test_addresses_behind_proxies(agent: Agent, arrived: Arrived) -> None:
    """Only as many proxies as there are said to be are believed."""
    app = GuardAgentMiddleware(
        forbidding, agent=agent, trusted_proxies=1, country_header="X-Country"
    )

    Client(app).get("/", headers={"X-Forwarded-For": "6.6.6.6, 198.51.100.7", "X-Country": "CH"})

    (event,) = arrived(agent)
    assert (event["ip_address"], event["country"]) == ("198.51.100.7", "CH")


def test_answers_are_handed_on_as_they_are(agent: Agent) -> None:
    """The server gets the very iterable of the application: files stay files."""
    file = FileWrapper(io.BytesIO(b"content"))

    def app(_environ: dict[str, Any], start_response: Start) -> Any:
        start_response("200 OK", PLAIN)
        return file

    assert GuardAgentMiddleware(app, agent=agent)({}, lambda *_: None) is file


def test_streams_are_neither_read_nor_held_up(agent: Agent, arrived: Arrived) -> None:
    """A part is made when the server asks for it; a client that leaves closes the generator."""
    made: list[object] = []

    def app(_environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response("403 Forbidden", PLAIN)
        try:
            for part in range(1_000):
                made.append(part)
                yield b"x"
        finally:
            made.append("closed")

    answer = Client(GuardAgentMiddleware(app, agent=agent)).open("/", buffered=False)
    parts = iter(answer.response)
    next(parts)
    answer.close()

    assert len(made) < 5
    assert made[-1] == "closed"
    (event,) = arrived(agent)
    assert event["status_code"] == 403


def test_write_and_late_errors_pass(agent: Agent, arrived: Arrived) -> None:
    """The `write` of PEP 3333 works, and a status that is taken back is not reported."""

    def app(_environ: dict[str, Any], start_response: Start) -> list[bytes]:
        start_response("200 OK", PLAIN)
        try:
            int("on second thoughts")
        except ValueError:
            write = start_response("429 Too Many Requests", PLAIN, sys.exc_info())
        write(b"one ")
        return [b"two"]

    out = io.BytesIO()
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    handler = SimpleHandler(io.BytesIO(), out, io.StringIO(), environ)
    handler.run(GuardAgentMiddleware(app, agent=agent))

    assert b" 429 Too Many Requests\r\n" in out.getvalue()
    assert out.getvalue().endswith(b"one two")
    assert [event["event_type"] for event in arrived(agent)] == ["rate_limited"]
    counts = [one["tags"]["status"] for one in arrived(agent, "metrics")
              if one["metric_type"] == "request_count"]  # fmt: skip
    assert counts == ["4xx"]


def test_exceptions_reach_the_server(agent: Agent, arrived: Arrived) -> None:
    """An exception passes, and is an event where it matters; an exit is none."""

    def app(environ: dict[str, Any], _start_response: Start) -> list[bytes]:
        raise SystemExit(0) if environ["PATH_INFO"] == "/login/out" else ValueError("secret")

    client = Client(GuardAgentMiddleware(app, agent=agent))
    for path, kind in (("/login", ValueError), ("/tea", ValueError), ("/login/out", SystemExit)):
        with pytest.raises(kind):
            client.get(path)

    (event,) = arrived(agent)
    assert (event["event_type"], event["reason"]) == ("unhandled_exception", "ValueError")
    metrics = {one["metric_type"]: one["value"] for one in arrived(agent, "metrics")}
    assert (metrics["request_count"], metrics["error_rate"]) == (3, 1.0)


def test_generators_may_fail_before_their_status(agent: Agent, arrived: Arrived) -> None:
    """The code of one runs only in the server's loop: its error passes, and is not overlooked."""
    closed = []

    def app(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        try:
            if environ["PATH_INFO"] == "/login":
                raise ValueError("secret")
            start_response("200 OK", PLAIN)
            yield b"Done."
        finally:
            closed.append(environ["PATH_INFO"])

    served = GuardAgentMiddleware(app, agent=agent)
    with pytest.raises(ValueError, match="secret"):
        Client(served).get("/login")
    with Client(validator(served)).get("/") as answer:
        assert answer.text == "Done."

    assert closed == ["/login", "/"]
    (event,) = arrived(agent)
    assert (event["event_type"], event["reason"]) == ("unhandled_exception", "ValueError")
    counts = {one["tags"]["status"]: one["value"] for one in arrived(agent, "metrics")
              if one["metric_type"] == "request_count"}  # fmt: skip
    assert counts == {"none": 1, "2xx": 1}


def test_bottle_routes(agent: Agent, arrived: Arrived) -> None:
    """Bottle leaves its route where the middleware finds it."""
    app = bottle.Bottle()

    @app.get("/orders/<number:int>")
    def order(number: int) -> str:
        bottle.abort(401, f"Not your order: {number}.")
        return ""

    answer = Client(GuardAgentMiddleware(app, agent=agent)).get("/orders/5")

    assert answer.status_code == 401
    (event,) = arrived(agent)
    assert event["metadata"] == {"route": "/orders/<number:int>"}
    assert {one["tags"]["endpoint"] for one in arrived(agent, "metrics")} == {
        "/orders/<number:int>"
    }


class LeavesRoute:
    """What the manual shows for Falcon."""

    def process_resource(self, req: Any, _resp: Any, _resource: Any, _params: Any) -> None:
        req.env["guardagent.route"] = req.uri_template


class Order:
    def on_get(self, _req: Any, _resp: Any, number: str) -> None:
        raise falcon.HTTPForbidden(description=f"Not your order: {number}.")


def test_applications_may_leave_the_route(agent: Agent, arrived: Arrived) -> None:
    """Falcon, for one, tells it to a middleware of its own."""
    app = falcon.App(middleware=[LeavesRoute()])
    app.add_route("/orders/{number}", Order())

    Client(GuardAgentMiddleware(app, agent=agent)).get("/orders/5")

    (event,) = arrived(agent)
    assert event["metadata"] == {"route": "/orders/{number}"}


def test_mounted_in_flask(arrived: Arrived, backend: Backend) -> None:
    """Given settings, it makes an agent of its own."""
    app = Flask("shop")
    app.add_url_rule("/", "home", lambda: ("", 401))
    middleware = GuardAgentMiddleware(app.wsgi_app, **quick_settings(backend.url))
    app.wsgi_app = middleware  # type: ignore[method-assign]

    app.test_client().get("/")

    assert middleware.agent is guardagent.get_agent() is not None
    assert len(arrived(middleware.agent)) == 1


def test_the_default_agent_may_come_later(arrived: Arrived, backend: Backend) -> None:
    """Without settings it uses the process-wide agent, whenever that is made."""
    client = Client(GuardAgentMiddleware(forbidding))

    first = client.get("/").status_code
    agent = guardagent.init(**quick_settings(backend.url))
    client.get("/later")

    assert first == 403
    assert [event["endpoint"] for event in arrived(agent)] == ["/later"]
    assert requests_in(arrived(agent, "metrics")) == 2


def test_wrong_options_are_named() -> None:
    """A wrong option says which one."""
    with pytest.raises(ConfigError, match="did you mean capture_statuses"):
        GuardAgentMiddleware(forbidding, capture_status=[401])
