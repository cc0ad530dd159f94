"""The Django application, in a real Django project with a real backend."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.signals import user_login_failed
from django.core.cache import cache
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.test import AsyncClient, Client, override_settings

import guardagent
from guardagent import Agent, ConfigError
from tests.conftest import quick_settings
from tests.contrib import django_project
from tests.contrib.conftest import Arrived, requests_in
from tests.support.answers import Status
from tests.support.backend import Backend

django_project.set_up()

from guardagent.contrib.django import site  # noqa: E402 - needs the settings
from guardagent.contrib.django.signals import connect  # noqa: E402

Configure = Callable[..., Agent]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    cache.clear()
    yield
    site.forget()


@pytest.fixture
def configure(backend: Backend) -> Iterator[Configure]:
    """Put settings of GUARDAGENT in force for a test; return their agent."""
    overrides: list[override_settings] = []

    def put(**more: Any) -> Agent:
        names = {name.upper(): value for name, value in quick_settings(backend.url).items()}
        # Metrics are handed over by a flush, and not in the middle of a test.
        override = override_settings(GUARDAGENT={**names, "FLUSH_INTERVAL": 60.0, **more})
        override.enable()
        overrides.append(override)
        agent = site.current().reporter.agent
        assert agent is not None
        return agent

    yield put
    for override in overrides:
        override.disable()


def get(path: str, *, is_async: bool = False, **more: Any) -> Any:
    """Ask as a browser would, of the sync handler or of the async one."""
    if not is_async:
        response = Client(raise_request_exception=False).get(path, **more)
        response.parts = list(response)
        return response

    async def run() -> Any:
        response = await AsyncClient(raise_request_exception=False).get(path, **more)
        response.parts = [part async for part in response] if response.streaming else []
        return response

    return asyncio.run(run())


both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


@both
@pytest.mark.parametrize(
    ("status", "event_type"),
    [(401, "authentication_failed"), (403, "access_denied"), (429, "rate_limited")],
)
def test_refused_requests_are_events(
    configure: Configure, arrived: Arrived, is_async: bool, status: int, event_type: str
) -> None:
    """An answer with 401, 403 or 429 is an event that says who asked for what."""
    agent = configure()

    answer = get(
        f"/answers/{status}/?q=secret",
        is_async=is_async,
        headers={"User-Agent": "Mozilla/5.0", "X-Forwarded-For": "6.6.6.6"},
    )

    assert (answer.status_code, answer.content) == (status, b"As you wish.")
    (event,) = arrived(agent)
    assert event["event_type"] == event_type
    assert event["ip_address"] == "127.0.0.1"
    assert event["endpoint"] == f"/answers/{status}/"
    assert (event["method"], event["status_code"]) == ("GET", status)
    assert event["user_agent"] == "Mozilla/5.0"
    assert event["metadata"] == {"route": "/answers/<int:status>/"}
    assert event["handler_name"] == "guardagent.contrib.django"


@both
def test_metrics_by_route(configure: Configure, arrived: Arrived, is_async: bool) -> None:
    """Views of both kinds are measured by route, under either handler."""
    agent = configure()

    for path in ("/", "/async/", "/async/", "/nowhere/", "/weather/fail/", "/files/a/"):
        get(path, is_async=is_async)

    counts = [one for one in arrived(agent, "metrics") if one["metric_type"] == "request_count"]
    found = {(one["tags"]["endpoint"], one["tags"]["status"]): one["value"] for one in counts}
    assert found == {
        ("/", "2xx"): 1, ("/async/", "2xx"): 2, ("(no route)", "4xx"): 1,
        ("/weather/fail/", "5xx"): 1, (r"/^files/(?P<name>\w+)/$", "4xx"): 1,
    }  # fmt: skip


@both
@pytest.mark.parametrize("path", ["/stream/", "/stream-async/"])
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")
def test_streams_pass(configure: Configure, arrived: Arrived, is_async: bool, path: str) -> None:
    """A streamed answer arrives as it was made."""
    agent = configure()

    answer = get(path, is_async=is_async)

    assert answer.parts == [b"a", b"b", b"c"]
    assert [event["event_type"] for event in arrived(agent)] == ["rate_limited"]


def test_aborted_requests(configure: Configure, arrived: Arrived) -> None:
    """A client that leaves cancels the view as ever; it is measured, and no event."""
    agent = configure(CAPTURE_EXCEPTIONS="all")

    async def run() -> None:
        waiting = asyncio.Event()
        django_project.waiting.append(waiting)
        task = asyncio.create_task(AsyncClient().get("/wait/"))
        await waiting.wait()
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())

    assert arrived(agent) == []
    counts = [one["tags"]["status"] for one in arrived(agent, "metrics")
              if one["metric_type"] == "request_count"]  # fmt: skip
    assert counts == ["none"]


@both
@pytest.mark.parametrize(
    ("chosen", "paths"),
    [("security", ["/account/fail/"]), ("all", ["/account/fail/", "/weather/fail/"]), ("none", [])],
)
def test_unhandled_exceptions(
    configure: Configure, arrived: Arrived, is_async: bool, chosen: str, paths: list[str]
) -> None:
    """Those of sensitive paths are events, unless told otherwise; their text is not sent."""
    agent = configure(CAPTURE_EXCEPTIONS=chosen)

    answers = [get(path, is_async=is_async) for path in ("/account/fail/", "/weather/fail/")]

    assert [answer.status_code for answer in answers] == [500, 500]
    events = arrived(agent)
    assert [event["endpoint"] for event in events] == paths
    assert all(event["metadata"]["exception"] == "builtins.ValueError" for event in events)
    assert "hunter2" not in str(events)


def test_propagated_exceptions(configure: Configure, arrived: Arrived) -> None:
    """Where exceptions are let through to the server, they come through, and are measured."""
    agent = configure()

    strict = override_settings(DEBUG_PROPAGATE_EXCEPTIONS=True)
    with strict, pytest.raises(ValueError, match="hunter2"):
        Client().get("/weather/fail/")

    rates = [one["value"] for one in arrived(agent, "metrics")
             if one["metric_type"] == "error_rate"]  # fmt: skip
    assert rates == [1.0]


def test_permission_denied(configure: Configure, arrived: Arrived) -> None:
    """Django answers it with 403, and that is one event."""
    agent = configure()

    get("/denied/")

    assert [event["event_type"] for event in arrived(agent)] == ["access_denied"]


# -- security logs -------------------------------------------------------------------------------


@both
def test_csrf_failures(configure: Configure, arrived: Arrived, is_async: bool) -> None:
    """A request without a CSRF token is one event, which says why."""
    agent = configure()
    client: Any = AsyncClient if is_async else Client
    post = client(enforce_csrf_checks=True).post

    answer = asyncio.run(post("/protected/")) if is_async else post("/protected/")

    assert answer.status_code == 403
    (event,) = arrived(agent)
    assert (event["event_type"], event["rule_type"]) == ("access_denied", "csrf")
    assert "CSRF cookie not set" in event["reason"]
    assert (event["endpoint"], event["status_code"]) == ("/protected/", 403)


@both
def test_untrusted_hosts(configure: Configure, arrived: Arrived, is_async: bool) -> None:
    """They are events also where the log is told to keep quiet about them."""
    agent = configure()

    answer = get("/", is_async=is_async, headers={"host": "evil.example"})

    assert answer.status_code == 400
    (event,) = arrived(agent)
    assert (event["event_type"], event["rule_type"]) == ("suspicious_request", "DisallowedHost")
    assert "evil.example" in event["reason"]
    assert event["ip_address"] == "127.0.0.1"


def test_suspicious_operations(configure: Configure, arrived: Arrived) -> None:
    """What a view finds suspicious is an event, with the answer's status."""
    agent = configure(CAPTURE_STATUSES=[400])

    get("/suspicious/")

    (event,) = arrived(agent)
    assert (event["event_type"], event["status_code"]) == ("suspicious_request", 400)
    assert event["rule_type"] == "SuspiciousOperation"
    assert event["reason"] == "somebody is up to something"


def test_security_logs_without_a_request(configure: Configure, arrived: Arrived) -> None:
    """A line the application writes there itself is an event too."""
    agent = configure()

    logging.getLogger("django.security.orders").warning("order %d was changed", 5)

    (event,) = arrived(agent)
    assert (event["rule_type"], event["reason"]) == ("orders", "order 5 was changed")
    assert event["ip_address"] == ""


def test_bad_security_logs_cost_nothing(
    configure: Configure, arrived: Arrived, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that cannot be written raises nothing in the code that logs it."""
    agent = configure()
    monkeypatch.setattr(logging, "raiseExceptions", False)
    quiet = logging.getLogger("django.security.DisallowedHost")

    quiet.error("%d apples", "many")

    assert arrived(agent) == []


# -- logins --------------------------------------------------------------------------------------


def test_failed_logins(configure: Configure, arrived: Arrived) -> None:
    """A failed login is an event although its answer is 200; the name stays here."""
    agent = configure()

    answer = Client().post("/login/", {"username": "ann"})

    assert answer.status_code == 200
    (event,) = arrived(agent)
    assert event["event_type"] == "authentication_failed"
    assert (event["endpoint"], event["ip_address"]) == ("/login/", "127.0.0.1")
    assert event["metadata"] == {"route": "/login/"}


def test_usernames_are_told_when_asked(configure: Configure, arrived: Arrived) -> None:
    """Only with `CAPTURE_USERNAMES`; never the password."""
    agent = configure(CAPTURE_USERNAMES=True)

    Client().post("/login/", {"username": "ann"})

    (event,) = arrived(agent)
    assert event["metadata"]["username"] == "ann"
    assert "hunter2" not in str(event)


def test_lockouts_of_axes(configure: Configure, arrived: Arrived) -> None:
    """django-axes is heard where it is installed: the lockout is one event, not two."""
    agent = configure()

    answers = [Client().post("/login/").status_code for _ in range(2)]

    assert answers == [200, 429]
    events = [(event["event_type"], event["rule_type"]) for event in arrived(agent)]
    assert ("access_denied", "user_locked_out") in events
    assert not [event for event in arrived(agent) if event["event_type"] == "rate_limited"]


def test_signals_without_a_request(configure: Configure, arrived: Arrived) -> None:
    """A login that failed outside a request is an event without an address."""
    agent = configure()

    user_login_failed.send(sender=__name__, credentials={"username": "ann"}, request=None)

    (event,) = arrived(agent)
    assert (event["event_type"], event["ip_address"]) == ("authentication_failed", "")


def test_connecting_twice_reports_once(configure: Configure, arrived: Arrived) -> None:
    """Applications may be made ready more than once in a process."""
    agent = configure()
    connect()

    Client().post("/login/")

    assert len(arrived(agent)) == 1


# -- rules ---------------------------------------------------------------------------------------


@both
def test_rules_are_enforced(
    configure: Configure, arrived: Arrived, backend: Backend, is_async: bool
) -> None:
    """A banned client gets a 403 and is reported once; a limited one a 429."""
    backend.default_rules = Status(
        200, {}, b'{"version": 1, "ip_blacklist": ["198.51.100.7"],'
        b' "global_rate_limit": 1, "global_rate_window": 3600}',
    )  # fmt: skip
    agent = configure(ENFORCE_RULES=True, TRUSTED_PROXIES=1, COUNTRY_HEADER="CF-IPCountry")
    assert agent.wait_for_rules() is not None
    banned = {"X-Forwarded-For": "198.51.100.7", "CF-IPCountry": "CH"}

    answers = [get("/", is_async=is_async, headers=banned), *[get("/", is_async=is_async)] * 1,
               get("/", is_async=is_async)]  # fmt: skip

    assert [answer.status_code for answer in answers] == [403, 200, 429]
    assert answers[0].content == b"Forbidden\n"
    assert 0 < int(answers[2]["Retry-After"]) <= 3_600 * 17 / 16
    first, second = arrived(agent)
    assert (first["event_type"], first["country"]) == ("ip_blocked", "CH")
    assert second["event_type"] == "rate_limited"


# -- settings ------------------------------------------------------------------------------------


def check() -> list[str]:
    return [one.id or "" for one in run_checks() if (one.id or "").startswith("guardagent")]


def test_checks_find_nothing(configure: Configure) -> None:
    """A project that is set up right hears nothing."""
    configure(ENFORCE_RULES=True)

    assert check() == []


@pytest.mark.parametrize(
    ("settings", "ids"),
    [
        ({"GUARDAGENT": {"API_KEY": "k", "TIMEOUT": "soon"}}, ["guardagent.E001"]),
        ({"GUARDAGENT": {"API_KEYS": "k"}}, ["guardagent.E001"]),
        ({"GUARDAGENT": "key"}, ["guardagent.E001"]),
        ({"GUARDAGENT": {}}, ["guardagent.W001"]),
        ({"GUARDAGENT": {"API_KEY": "k"}, "MIDDLEWARE": []}, ["guardagent.W002"]),
        (
            {
                "GUARDAGENT": {"API_KEY": "k", "ENFORCE_RULES": True},
                "MIDDLEWARE": ["a", "b", django_project.MIDDLEWARE],
            },
            ["guardagent.W003"],
        ),
        ({"GUARDAGENT": {"API_KEY": "k"}, "USE_X_FORWARDED_HOST": True}, ["guardagent.W004"]),
    ],
)
def test_checks(settings: dict[str, Any], ids: list[str]) -> None:
    """Each mistake has an id of its own."""
    with override_settings(**settings):
        assert check() == ids


def test_wrong_settings_stop_the_server_by_name() -> None:
    """Who runs no checks hears of it all the same, before the first request."""
    wrong = override_settings(GUARDAGENT={"API_KEY": "k", "TRUSTED_PROXIES": -1})
    with wrong, pytest.raises(ConfigError, match="trusted_proxies: given -1"):
        Client().get("/")


def test_nothing_set_is_no_error(arrived: Arrived, backend: Backend) -> None:
    """Without settings the process-wide agent is used, and without that one all goes on."""
    first = get("/answers/401/").status_code
    agent = guardagent.init(**quick_settings(backend.url))
    get("/answers/403/")

    assert first == 401
    assert [event["status_code"] for event in arrived(agent)] == [403]
    assert requests_in(arrived(agent, "metrics")) == 2


def test_agent_is_the_process_wide_one(configure: Configure) -> None:
    """Views may capture with `guardagent.capture`."""
    assert configure() is guardagent.get_agent()


def test_building_starts_nothing(configure: Configure) -> None:
    """So the reloader's parent, and a server's master, have no threads."""
    agent = configure()

    assert agent.stats().threads_alive == 0


# -- command -------------------------------------------------------------------------------------


def test_status_command(
    configure: Configure, backend: Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    """`manage.py guardagent status` tells the settings, and what the backend says."""
    configure(TRUSTED_PROXIES=2)

    call_command("guardagent", "status")

    out = capsys.readouterr().out
    assert f"endpoint: {backend.url}" in out
    assert "trusted proxies: 2" in out
    assert "rules: none" in out
    assert "test-key" not in out


def test_send_command(
    configure: Configure, backend: Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    """`manage.py guardagent send` sends one test event with the project's settings."""
    configure()

    call_command("guardagent", "send")

    assert f"Accepted by {backend.url}." in capsys.readouterr().out
    (event,) = [one for request in backend.requests for one in request.records]
    assert event["event_type"] == "connection_test"


@pytest.mark.parametrize("what", ["status", "send"])
def test_commands_say_what_is_wrong(configure: Configure, backend: Backend, what: str) -> None:
    """A refused key is named, and ends the command with an error."""
    backend.default_rules = backend.default = Status(401)
    configure()

    with pytest.raises(CommandError, match="the key is refused"):
        call_command("guardagent", what)


@pytest.mark.parametrize("what", ["status", "send"])
def test_commands_without_a_key(what: str) -> None:
    """The most common mistake is named."""
    with pytest.raises(CommandError, match="There is no api_key"):
        call_command("guardagent", what)


@pytest.mark.parametrize(
    ("body", "said"),
    [(b"<html>", "rules: wrong"), (b'{"version": "x"}', "rules: wrong"), (b'{"version": 3}',
     "rules: default-rule, version 3"), (b"[]", "rules: none")],
)  # fmt: skip
def test_status_reads_the_rules(
    configure: Configure,
    backend: Backend,
    capsys: pytest.CaptureFixture[str],
    body: bytes,
    said: str,
) -> None:
    """Wrong rules are told apart from none."""
    backend.default_rules = Status(200, {}, body)
    configure()

    try:
        call_command("guardagent", "status")
        text = capsys.readouterr().out
    except CommandError as error:
        text = str(error)

    assert said in text
