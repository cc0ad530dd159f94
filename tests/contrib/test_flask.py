"""The Flask extension, in real Flask applications with a real backend."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from flask import (
    Blueprint,
    Flask,
    Request,
    abort,
    redirect,
    request,
    request_started,
    stream_with_context,
)
from werkzeug.middleware.proxy_fix import ProxyFix

import guardagent
from guardagent import Agent, ConfigError, SecurityEvent
from guardagent.contrib.flask import GuardAgent
from guardagent.contrib.logging import GuardAgentHandler
from tests.conftest import MakeAgent, quick_settings
from tests.contrib.conftest import Arrived, requests_in
from tests.support.answers import Status
from tests.support.backend import Backend


def make_app(agent: Agent | None = None, **settings: Any) -> Flask:
    app = Flask("shop")
    app.config["GUARDAGENT"] = settings

    @app.get("/")
    def home() -> str:
        return "Welcome."

    @app.get("/products/<int:number>")
    def product(number: int) -> str:
        return f"Product {number}."

    @app.get("/answers/<int:status>")
    def answer(status: int) -> tuple[str, int]:
        return "As you wish.", status

    @app.get("/login")
    def login() -> str:
        raise ValueError("the secret is hunter2")

    @app.get("/weather")
    def weather() -> str:
        raise ValueError("rain")

    @app.get("/vault")
    def vault() -> str:
        raise PermissionError("not for you")

    GuardAgent(app, agent=agent)
    return app


class StrictRequest(Request):
    trusted_hosts = ["shop.example"]  # noqa: RUF012 - as Flask's manual has it


@pytest.mark.parametrize(
    ("status", "event_type"),
    [(401, "authentication_failed"), (403, "access_denied"), (429, "rate_limited")],
)
def test_refused_requests_are_events(
    agent: Agent, arrived: Arrived, status: int, event_type: str
) -> None:
    """An answer with 401, 403 or 429 is an event that says who asked for what."""
    app = make_app(agent)

    answer = app.test_client().get(
        f"/answers/{status}?q=secret",
        headers={"User-Agent": "Mozilla/5.0", "X-Forwarded-For": "1.2.3.4"},
        environ_base={"REMOTE_ADDR": "203.0.113.9"},
    )

    assert (answer.status_code, answer.text) == (status, "As you wish.")
    (event,) = arrived(agent)
    assert event["event_type"] == event_type
    assert event["ip_address"] == "203.0.113.9"
    assert event["endpoint"] == f"/answers/{status}"
    assert event["method"] == "GET"
    assert event["status_code"] == status
    assert event["user_agent"] == "Mozilla/5.0"
    assert event["action_taken"] == "logged"
    assert event["response_time"] > 0
    assert event["handler_name"] == "guardagent.contrib.flask"
    assert event["metadata"] == {"route": "/answers/<int:status>"}


@pytest.mark.parametrize("status", [200, 302, 400, 404, 500])
def test_other_answers_are_no_events(agent: Agent, arrived: Arrived, status: int) -> None:
    """What is not one of the statuses to capture is measured only."""
    app = make_app(agent)

    app.test_client().get(f"/answers/{status}")

    assert arrived(agent) == []


def test_statuses_are_a_setting(agent: Agent, arrived: Arrived) -> None:
    """The application says which answers are events."""
    client = make_app(agent, CAPTURE_STATUSES=[404, 400]).test_client()

    for path in ("/answers/403", "/answers/400", "/nowhere"):
        client.get(path)

    found = [(event["event_type"], event["endpoint"]) for event in arrived(agent)]
    assert found == [("suspicious_request", "/answers/400"), ("http_error", "/nowhere")]


def test_untrusted_host_is_suspicious(agent: Agent, arrived: Arrived) -> None:
    """A request for a host the application does not trust is an event."""
    app = make_app(agent)
    app.request_class = StrictRequest
    app.add_url_rule("/host", "host", lambda: request.host)

    answers = [
        app.test_client().get(path, headers={"Host": host}).status_code
        for path, host in (("/host", "shop.example"), ("/host", "evil.example"))
    ]

    assert answers == [200, 400]
    (event,) = arrived(agent)
    assert (event["event_type"], event["status_code"]) == ("suspicious_request", 400)
    assert event["reason"] == "a host that is not trusted"


@pytest.mark.parametrize(
    ("chosen", "paths"),
    [
        ("security", ["/login", "/vault"]),
        ("all", ["/login", "/vault", "/weather"]),
        ("none", []),
    ],
)
def test_unhandled_exceptions(
    agent: Agent, arrived: Arrived, chosen: str, paths: list[str]
) -> None:
    """Those of sensitive paths and of security's own kinds are events, unless told otherwise."""
    client = make_app(agent, capture_exceptions=chosen).test_client()

    answers = [client.get(path).status_code for path in ("/login", "/vault", "/weather")]

    assert answers == [500, 500, 500]
    events = arrived(agent)
    assert [event["endpoint"] for event in events] == paths
    assert {event["event_type"] for event in events} <= {"unhandled_exception"}


def test_exceptions_tell_their_kind_and_no_secret(agent: Agent, arrived: Arrived) -> None:
    """The message of an exception, which may quote anything, is not sent."""
    make_app(agent).test_client().get("/login")

    (event,) = arrived(agent)
    assert (event["reason"], event["status_code"]) == ("ValueError", 500)
    assert event["metadata"] == {"route": "/login", "exception": "builtins.ValueError"}
    assert "hunter2" not in str(event)


def test_exceptions_reach_the_server(agent: Agent, arrived: Arrived) -> None:
    """Where the application lets exceptions through, they come through, and are measured."""
    app = make_app(agent)
    app.testing = True

    with pytest.raises(ValueError, match="rain"):
        app.test_client().get("/weather")

    metrics = arrived(agent, "metrics")
    rates = [one["value"] for one in metrics if one["metric_type"] == "error_rate"]
    assert rates == [1.0]


def test_own_error_handlers_stay(agent: Agent, arrived: Arrived) -> None:
    """An exception that the application handles is no unhandled one."""
    app = make_app(agent, capture_exceptions="all")

    @app.errorhandler(ValueError)
    def sorry(_error: ValueError) -> tuple[str, int]:
        return "Sorry.", 418

    answer = app.test_client().get("/weather")

    assert (answer.status_code, answer.text) == (418, "Sorry.")
    assert arrived(agent) == []


def test_metrics_by_route(agent: Agent, arrived: Arrived) -> None:
    """Requests are measured by route template, method and status; not one by one."""
    client = make_app(agent).test_client()

    for number in range(10):
        client.get(f"/products/{number}")
        client.get(f"/nowhere/{number}")
    client.get("/weather")
    client.open("/", method="STRANGE")

    found = {
        (one["metric_type"], *(one["tags"].get(name) for name in ("endpoint", "method", "status"))):
        one["value"] for one in arrived(agent, "metrics")
    }  # fmt: skip
    product = "/products/<int:number>"
    assert found["request_count", product, "GET", "2xx"] == 10
    assert 0 < found["response_time", product, "GET", "2xx"] < 10
    assert found["error_rate", product, "GET", None] == 0
    assert found["request_count", "(no route)", "GET", "4xx"] == 10
    assert found["error_rate", "/weather", "GET", None] == 1
    assert found["request_count", "(no route)", "(other)", "4xx"] == 1
    assert len(found) == 3 * 4


def test_routes_are_bounded(agent: Agent, arrived: Arrived) -> None:
    """However many routes there are, only so many have metrics of their own."""
    app = make_app(agent, max_routes=2)
    for number in range(5):
        app.add_url_rule(f"/r{number}", f"r{number}", lambda: "")

    for number in range(5):
        app.test_client().get(f"/r{number}")

    counts = {one["tags"]["endpoint"]: one["value"] for one in arrived(agent, "metrics")
              if one["metric_type"] == "request_count"}  # fmt: skip
    assert counts == {"/r0": 1, "/r1": 1, "(other)": 3}


def test_metrics_come_without_a_flush(make_agent: MakeAgent, backend: Backend) -> None:
    """What was gathered is handed over after the agent's interval, without another request."""
    make_app(make_agent()).test_client().get("/")

    assert backend.wait_for(3)


def test_metrics_can_be_off(agent: Agent, arrived: Arrived) -> None:
    """Then a request that is no event leaves nothing at all."""
    make_app(agent, capture_metrics=False).test_client().get("/")

    assert arrived(agent, "metrics") == []
    assert agent.stats().captured == 0


def test_streams_and_blueprints(agent: Agent, arrived: Arrived) -> None:
    """A streamed answer arrives as it was made; a blueprint's route has its prefix."""
    app = make_app(agent)
    files = Blueprint("files", __name__, url_prefix="/files")

    @files.get("/<name>")
    def stream(name: str) -> tuple[Iterator[str], int]:
        return stream_with_context(f"{name} {request.path} {part}\n" for part in range(3)), 403

    app.register_blueprint(files)

    answer = app.test_client().get("/files/a")

    assert answer.text == "a /files/a 0\na /files/a 1\na /files/a 2\n"
    (event,) = arrived(agent)
    assert event["metadata"] == {"route": "/files/<name>"}


@pytest.mark.parametrize(
    ("trusted", "forwarded", "address"),
    [
        (0, "198.51.100.7", "10.0.0.1"),
        (1, "6.6.6.6, 198.51.100.7", "198.51.100.7"),
        (2, "6.6.6.6, 198.51.100.7, 10.0.0.2", "198.51.100.7"),
        (2, "198.51.100.7", "10.0.0.1"),
    ],
)
def test_addresses_behind_proxies(
    agent: Agent, arrived: Arrived, trusted: int, forwarded: str, address: str
) -> None:
    """The client's address is read through the stated number of proxies and no further."""
    client = make_app(agent, trusted_proxies=trusted, country_header="CF-IPCountry").test_client()

    client.get(
        "/answers/403",
        headers={"X-Forwarded-For": forwarded, "CF-IPCountry": "CH"},
        environ_base={"REMOTE_ADDR": "10.0.0.1"},
    )

    (event,) = arrived(agent)
    assert event["ip_address"] == address
    assert event["country"] == ("CH" if trusted else None)


def test_proxy_fix_is_believed(agent: Agent, arrived: Arrived) -> None:
    """An application that has werkzeug's own middleware for it needs no setting."""
    app = make_app(agent)
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]

    app.test_client().get("/answers/403", headers={"X-Forwarded-For": "6.6.6.6, 198.51.100.7"})

    assert arrived(agent)[0]["ip_address"] == "198.51.100.7"


def test_after_request_has_the_last_word(agent: Agent, arrived: Arrived) -> None:
    """The status that counts is the one that is sent."""
    app = make_app(agent)

    @app.after_request
    def hide(response: Any) -> Any:
        response.status_code = 404
        return response

    app.test_client().get("/answers/403")

    assert arrived(agent) == []


# -- whose agent ---------------------------------------------------------------------------------


def test_settings_make_an_agent(backend: Backend, arrived: Arrived) -> None:
    """The agent's settings stand beside the extension's; it is the process-wide one, then."""
    app = make_app(**{name.upper(): value for name, value in quick_settings(backend.url).items()})

    app.test_client().get("/answers/401")

    agent = guardagent.get_agent()
    assert agent is not None
    assert guardagent.capture(SecurityEvent(event_type="ip_banned"))
    assert [event["event_type"] for event in arrived(agent)] == [
        "authentication_failed",
        "ip_banned",
    ]


def test_two_applications_have_two_agents(backend: Backend) -> None:
    """What each one reports goes to its own; the first is behind `guardagent.capture`."""
    apps = [make_app(**quick_settings(backend.url), install_id=f"app-{n}") for n in (1, 2)]

    agents = [app.extensions["guardagent"].reporter.agent for app in apps]
    apps[1].test_client().get("/answers/401")

    assert [agent.stats().captured for agent in agents] == [0, 1]
    assert guardagent.get_agent() is agents[0]
    assert agents[1].stop()


def test_environment_makes_an_agent(
    backend: Backend, arrived: Arrived, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without settings in the application those of the environment count."""
    monkeypatch.setenv("GUARDAGENT_API_KEY", "key-of-the-environment")
    monkeypatch.setenv("GUARDAGENT_ENDPOINT", backend.url)

    make_app().test_client().get("/answers/401")

    agent = guardagent.get_agent()
    assert agent is not None
    assert len(arrived(agent)) == 1
    assert backend.requests[0].headers["x-api-key"] == "key-of-the-environment"


def test_the_default_agent_may_come_later(arrived: Arrived, backend: Backend) -> None:
    """An extension without settings uses the process-wide agent, whenever it is made."""
    app = make_app()

    first = app.test_client().get("/answers/401")
    agent = guardagent.init(**quick_settings(backend.url))
    app.test_client().get("/answers/403")

    assert first.status_code == 401
    assert [event["status_code"] for event in arrived(agent)] == [403]
    assert requests_in(arrived(agent, "metrics")) == 2


def test_no_agent_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """An extension that reports to nobody says so once, and answers as ever."""
    client = make_app().test_client()

    answers = [client.get("/answers/401").status_code for _ in range(3)]

    assert answers == [401, 401, 401]
    lines = [line for line in caplog.messages if "there is no agent" in line]
    assert len(lines) == 1


def test_no_key_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Settings without a key make a disabled agent: a warning, and every request is answered."""
    app = make_app(project_id="shop")

    assert app.test_client().get("/answers/401").status_code == 401
    assert [line for line in caplog.messages if "disabled" in line]


def test_full_queue_is_no_error_of_a_request(make_agent: Any) -> None:
    """Even where the application asked for an exception, a shim's own events raise none."""
    agent = make_agent(overflow="raise", queue_capacity=1, buffer_size=1000, flush_interval=60)
    client = make_app(agent, capture_metrics=False).test_client()

    answers = {client.get("/answers/401").status_code for _ in range(20)}

    assert answers == {401}


def test_init_app(agent: Agent, arrived: Arrived) -> None:
    """One extension object serves applications made later, and refuses one it has."""
    extension = GuardAgent(agent=agent, capture_statuses=[418])
    app = Flask("late")
    app.add_url_rule("/", "tea", lambda: ("", 418))
    extension.init_app(app)

    app.test_client().get("/")

    assert arrived(agent)[0]["event_type"] == "http_error"
    with app.app_context():
        assert extension.agent is agent
    with pytest.raises(ConfigError, match="'late' has this extension already"):
        extension.init_app(app)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trusted_proxies": -1}, "trusted_proxies: given -1"),
        (
            {"TRUSTED_PROXY": 1},
            "trusted_proxy: there is no such setting; did you mean trusted_prox",
        ),
        ({"buffersize": 1}, "did you mean buffer_size"),
        (
            {"capture_statuses": [20]},
            "capture_statuses: given .*, allowed: a whole number from 100",
        ),
        ({"capture_exceptions": "some"}, "allowed: one of security, all, none"),
        ({"endpoint": "ftp://x"}, "endpoint: given"),
        ({"enforce_rules": "perhaps"}, "enforce_rules: given"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    """A wrong setting says which one, and what is allowed."""
    with pytest.raises(ConfigError, match=message):
        make_app(**settings)


def test_settings_are_a_mapping() -> None:
    """Anything else is refused."""
    app = Flask("wrong")
    app.config["GUARDAGENT"] = "key"

    with pytest.raises(ConfigError, match="GUARDAGENT: given a value of type str"):
        GuardAgent(app)


def test_no_path_may_be_sensitive(agent: Agent, arrived: Arrived) -> None:
    """Without any words only the exceptions' own kind counts."""
    client = make_app(agent, sensitive_paths=[], capture_statuses=403).test_client()

    for path in ("/login", "/vault", "/answers/403", "/answers/401"):
        client.get(path)

    assert [event["endpoint"] for event in arrived(agent)] == ["/vault", "/answers/403"]


def test_requests_that_never_began(agent: Agent, arrived: Arrived) -> None:
    """Where the application's own receivers fail first there is nothing to measure."""

    def fail(_app: Flask, **_more: Any) -> None:
        raise RuntimeError("too early")

    app = make_app(agent)

    with request_started.connected_to(fail, app):
        answer = app.test_client().get("/")

    assert answer.status_code == 500
    assert arrived(agent, "metrics") == []


def test_settings_may_be_text(agent: Agent, arrived: Arrived) -> None:
    """As ini files and environments have it."""
    texts = {"capture_statuses": "404, 418", "trusted_proxies": "1", "capture_metrics": "no",
             "sensitive_paths": "weather, tea"}  # fmt: skip
    client = make_app(agent, **texts).test_client()

    client.get("/answers/418", headers={"X-Forwarded-For": "198.51.100.7"})
    client.get("/weather")

    answer, error = arrived(agent)
    assert answer["ip_address"] == "198.51.100.7"
    assert error["event_type"] == "unhandled_exception"
    assert arrived(agent, "metrics") == []


def test_applications_are_let_go(agent: Agent) -> None:
    """An application that nobody holds any more is gone, and the extension's part of it too."""
    app = make_app(agent)
    app.test_client().get("/")
    gone = weakref.ref(app), weakref.ref(app.extensions["guardagent"])

    del app
    gc.collect()

    assert [one() for one in gone] == [None, None]


# -- commands ------------------------------------------------------------------------------------


def test_status_command(agent: Agent, backend: Backend) -> None:
    """`flask guardagent status` tells the settings, and what the backend says."""
    backend.default_rules = Status(200, {}, b'{"rule_id": "r-1", "version": 7}')

    result = make_app(agent).test_cli_runner().invoke(args=["guardagent", "status"])

    assert result.exit_code == 0, result.output
    assert f"endpoint: {backend.url}" in result.output
    assert "rules: r-1, version 7" in result.output
    assert "The backend answers." in result.output
    assert "test-key" not in result.output


def test_status_command_with_a_refused_key(agent: Agent, backend: Backend) -> None:
    """What is wrong is said in plain words, and the exit status tells it too."""
    backend.default_rules = Status(401)

    result = make_app(agent).test_cli_runner().invoke(args=["guardagent", "status"])

    assert result.exit_code == 1
    assert "the key is refused" in result.output


def test_send_command(agent: Agent, backend: Backend) -> None:
    """One event, with the application's settings; said only when the backend has taken it."""
    result = make_app(agent).test_cli_runner().invoke(args=["guardagent", "send"])

    assert result.exit_code == 0, result.output
    assert "Accepted by" in result.output
    assert len(backend.received) == 1


def test_send_command_with_a_refused_key(agent: Agent, backend: Backend) -> None:
    """The reason, and status 1."""
    backend.default = Status(401)

    result = make_app(agent).test_cli_runner().invoke(args=["guardagent", "send"])

    assert result.exit_code == 1
    assert "Not accepted" in result.output
    assert backend.received == []


def test_status_command_without_a_key() -> None:
    """The most common mistake is named."""
    result = make_app().test_cli_runner().invoke(args=["guardagent", "status"])

    assert result.exit_code == 1
    assert "There is no api_key" in result.output


def test_commands_are_not_heard(
    agent: Agent, arrived: Arrived, caplog: pytest.LogCaptureFixture
) -> None:
    """What urllib3 logs while a command asks the backend is no event."""
    app = make_app(agent)
    root = logging.getLogger()
    handler = GuardAgentHandler(logging.DEBUG, agent=agent)
    root.addHandler(handler)
    try:
        with caplog.at_level(logging.DEBUG):
            app.test_cli_runner().invoke(args=["guardagent", "status"])
    finally:
        root.removeHandler(handler)

    assert "urllib3.connectionpool" in {record.name for record in caplog.records}
    assert not [event for event in arrived(agent) if "/rules" in event["reason"]]


def test_redirects_and_aborts_pass(agent: Agent, arrived: Arrived) -> None:
    """Answers made by exceptions of the framework's are answers like others."""
    app = make_app(agent)
    app.add_url_rule("/old", "old", lambda: redirect("/"))
    app.add_url_rule("/no", "no", lambda: abort(403))

    answers = [app.test_client().get(path) for path in ("/old", "/no")]

    assert [answer.status_code for answer in answers] == [302, 403]
    assert [event["endpoint"] for event in arrived(agent)] == ["/no"]
