"""Rules that are enforced: what is refused, how, and that it is reported."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from typing import Any

import httpx
import pytest
import redis
from flask import Flask
from werkzeug.test import Client

from guardagent import Agent, DynamicRules
from guardagent.contrib.asgi import GuardAgentMiddleware as AsgiMiddleware
from guardagent.contrib.flask import GuardAgent
from guardagent.contrib.wsgi import GuardAgentMiddleware as WsgiMiddleware
from tests.conftest import MakeAgent
from tests.contrib.conftest import Arrived
from tests.support.answers import Status
from tests.support.backend import Backend
from tests.support.redis_server import RedisServer

Answer = tuple[int, dict[str, str], str]


class Site:
    """One application of each kind, behind the same rules."""

    def __init__(self, kind: str, agent: Agent, **options: Any) -> None:
        self.served = 0
        options = {"enforce_rules": True, "agent": agent, **options}
        self._ask = getattr(self, f"_make_{kind}")(options)

    def get(self, path: str = "/", address: str = "203.0.113.9", **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._ask(path, address, named)

    def _make_flask(self, options: dict[str, Any]) -> Any:
        app = Flask("shop")
        GuardAgent(app, **options)

        @app.get("/")
        @app.get("/<path:path>")
        def serve(path: str = "") -> str:
            self.served += 1
            return "Welcome."

        return self._client(app)

    def _make_wsgi(self, options: dict[str, Any]) -> Any:
        def app(_environ: dict[str, Any], start_response: Any) -> list[bytes]:
            self.served += 1
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"Welcome."]

        return self._client(WsgiMiddleware(app, **options))

    def _make_asgi(self, options: dict[str, Any]) -> Any:
        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            self.served += 1
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"Welcome."})

        middleware: Any = AsgiMiddleware(app, **options)

        def ask(path: str, address: str, headers: dict[str, str]) -> Answer:
            async def run() -> httpx.Response:
                transport = httpx.ASGITransport(app=middleware, client=(address, 1))
                async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
                    return await client.get(path, headers=headers)

            answer = asyncio.run(run())
            return answer.status_code, {**answer.headers}, answer.text

        return ask

    @staticmethod
    def _client(app: Any) -> Any:
        client = Client(app)

        def ask(path: str, address: str, headers: dict[str, str]) -> Answer:
            environ = {"REMOTE_ADDR": address}
            answer = client.get(path, headers=headers, environ_overrides=environ)
            found = {name.lower(): value for name, value in answer.headers.items()}
            return answer.status_code, found, answer.text

        return ask


@pytest.fixture(params=["flask", "wsgi", "asgi"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def in_force(agent: Agent, backend: Backend, **rules: Any) -> None:
    document = {"rule_id": "r-1", "version": 1, **rules}
    backend.default_rules = Status(200, {}, json.dumps(document).encode())
    assert agent.wait_for_rules() is not None


def in_force_later(agent: Agent, backend: Backend, **rules: Any) -> None:
    """Put rules in force after the agent has heard that there are none."""
    arrived = threading.Event()
    agent.on_rules(lambda _rules: arrived.set())
    document = {"rule_id": "r-1", "version": 1, **rules}
    backend.default_rules = Status(200, {}, json.dumps(document).encode())
    assert arrived.wait(30)


@pytest.mark.parametrize(
    ("rules", "request_of", "event_type"),
    [
        ({"ip_blacklist": ["203.0.113.0/24"]}, {}, "ip_blocked"),
        ({"blocked_user_agents": ["sqlmap"]}, {"User_Agent": "sqlmap/1.8"}, "user_agent_blocked"),
        ({"suspicious_patterns": ["union.select"]}, {"path": "/a?q=union%20select"},
         "pattern_detected"),
        ({"emergency_mode": True, "emergency_whitelist": ["10.0.0.1"]}, {},
         "emergency_mode_block"),
    ],
    ids=["address", "agent", "pattern", "emergency"],
)  # fmt: skip
def test_forbidden_requests(
    kind: str, agent: Agent, backend: Backend, arrived: Arrived,
    rules: dict[str, Any], request_of: dict[str, Any], event_type: str,
) -> None:  # fmt: skip
    """What a rule forbids is answered with 403 before the application, and is one event."""
    in_force(agent, backend, **rules)
    site = Site(kind, agent)

    status, headers, body = site.get(**request_of)

    assert (status, body, site.served) == (403, "Forbidden\n", 0)
    assert headers["cache-control"] == "no-store"
    assert headers["content-length"] == "10"
    (event,) = arrived(agent)
    (field,) = [name for name in rules if name != "emergency_whitelist"]
    assert event["event_type"] == event_type
    assert event["action_taken"] == "request_blocked"
    assert event["rule_type"] == field
    assert event["reason"].startswith(field)
    assert (event["status_code"], event["ip_address"]) == (403, "203.0.113.9")


def test_other_requests_pass(kind: str, agent: Agent, backend: Backend, arrived: Arrived) -> None:
    """What no rule forbids reaches the application and is answered as ever."""
    in_force(agent, backend, ip_blacklist=["198.51.100.7"], suspicious_patterns=["union"])
    site = Site(kind, agent)

    status, _, body = site.get("/products?q=boots")

    assert (status, body, site.served) == (200, "Welcome.", 1)
    assert arrived(agent) == []


def test_limits(kind: str, agent: Agent, backend: Backend, arrived: Arrived) -> None:
    """A client's requests beyond the limit are put off with 429, nobody else's."""
    in_force(
        agent, backend, global_rate_limit=2, global_rate_window=3_600, ip_whitelist=["10.9.9.9"]
    )
    site = Site(kind, agent)

    statuses = [site.get()[0] for _ in range(2)]
    status, headers, body = site.get()
    others = [site.get(address=address)[0] for address in ("198.51.100.7", *["10.9.9.9"] * 3)]

    assert statuses == [200, 200]
    assert (status, body) == (429, "Too Many Requests\n")
    assert 0 < int(headers["retry-after"]) <= 3_600 * 17 / 16
    assert others == [200] * 4
    (event,) = arrived(agent)
    assert (event["event_type"], event["status_code"]) == ("rate_limited", 429)
    assert event["rule_type"] == "global_rate_limit"
    assert event["reason"] == "too many requests: 2 in 3600 s"


def test_limits_of_single_paths(
    kind: str, agent: Agent, backend: Backend, arrived: Arrived
) -> None:
    """A path with a limit of its own is put off alone; its query makes no other path of it."""
    in_force(agent, backend, endpoint_rate_limits={"/login": [1, 3_600]})
    site = Site(kind, agent)

    statuses = [site.get(path)[0] for path in ("/login", "/login?x=1", "/")]

    assert statuses == [200, 429, 200]
    assert arrived(agent)[0]["rule_type"] == "endpoint_rate_limits"


def test_banned_clients_cannot_hide(kind: str, agent: Agent, backend: Backend) -> None:
    """What a client writes into X-Forwarded-For changes nothing, with proxies or without."""
    in_force(agent, backend, ip_blacklist=["203.0.113.9"])
    direct, proxied = Site(kind, agent), Site(kind, agent, trusted_proxies=1)

    statuses = [
        direct.get(X_Forwarded_For="198.51.100.7")[0],
        proxied.get(address="10.0.0.1", X_Forwarded_For="198.51.100.7, 203.0.113.9")[0],
        proxied.get(address="10.0.0.1", X_Forwarded_For="203.0.113.9, 198.51.100.7")[0],
    ]

    assert statuses == [403, 403, 200]


def test_countries(kind: str, agent: Agent, backend: Backend, arrived: Arrived) -> None:
    """The country comes from a trusted proxy, or the rules about countries are left alone."""
    in_force(agent, backend, blocked_countries=["XX"])
    unasked = Site(kind, agent)
    asked = Site(kind, agent, trusted_proxies=1, country_header="CF-IPCountry")

    statuses = [site.get(CF_IPCountry=code)[0] for site, code in
                ((unasked, "XX"), (asked, "XX"), (asked, "CH"))]  # fmt: skip

    assert statuses == [200, 403, 200]
    (event,) = arrived(agent)
    assert (event["event_type"], event["country"]) == ("country_blocked", "XX")


def test_rules_are_only_enforced_when_asked(kind: str, agent: Agent, backend: Backend) -> None:
    """Without `enforce_rules` no request is refused."""
    in_force(agent, backend, ip_blacklist=["203.0.113.9"])

    assert Site(kind, agent, enforce_rules=False).get()[0] == 200


def test_the_first_request_has_the_rules_fetched(kind: str, agent: Agent, backend: Backend) -> None:
    """Until the first rules are there everything passes; nobody has to start anything."""
    backend.default_rules = Status(200, {}, b'{"version": 1, "ip_blacklist": ["203.0.113.9"]}')
    site = Site(kind, agent, capture_metrics=False)

    first = site.get()[0]
    assert agent.wait_for_rules() is not None
    second = site.get()[0]

    assert (first, second) == (200, 403)


def test_new_rules_replace_old_ones(kind: str, make_agent: MakeAgent, backend: Backend) -> None:
    """A new document counts for the next request, with its limits and its lists."""
    agent = make_agent(dynamic_rule_interval=0.05)
    in_force(agent, backend, global_rate_limit=1, global_rate_window=3_600)
    site = Site(kind, agent)
    before = [site.get()[0] for _ in range(2)]
    renewed = threading.Event()
    agent.on_rules(lambda rules: renewed.set() if rules.version == 2 else None)

    in_force(agent, backend, version=2, global_rate_limit=3, global_rate_window=60,
             ip_blacklist=["198.51.100.7"])  # fmt: skip
    assert renewed.wait(10)

    assert before == [200, 429]
    assert [site.get()[0] for _ in range(4)] == [200, 200, 200, 429]
    assert site.get(address="198.51.100.7")[0] == 403


@pytest.mark.parametrize("given", ["address", "client"])
def test_limits_count_together_on_redis(
    kind: str, make_agent: MakeAgent, backend: Backend, given: str
) -> None:
    """With a spool in Redis all processes share one count; alone each goes on with its own."""
    with RedisServer(persistent=False) as server:
        client = redis.Redis.from_url(server.url)
        spool = server.url if given == "address" else client
        sites = []
        for _ in range(2):
            agent = make_agent(spool=spool)
            in_force(agent, backend, global_rate_limit=3, global_rate_window=86_400)
            sites.append(Site(kind, agent))

        together = [site.get()[0] for site in sites * 3]
        server.kill()
        alone = [site.get()[0] for site in sites]
        client.close()
    sites.clear()
    gc.collect()  # threads and connections for it end with the applications

    assert sorted(together) == [200] * 3 + [429] * 3
    assert alone == [200, 200]


@pytest.mark.parametrize("without_rules", ["allow", "refuse"])
def test_while_no_rules_are_in_force(
    kind: str, make_agent: MakeAgent, backend: Backend, without_rules: str
) -> None:
    """Everything passes, or nothing, as one likes; with rules, what they allow."""
    agent = make_agent(dynamic_rule_interval=0.05)
    site = Site(kind, agent, without_rules=without_rules)
    backend.default_rules = Status(200, {}, b"{}")
    agent.wait_for_rules()

    before = site.get()[0]
    in_force_later(agent, backend, ip_blacklist=["198.51.100.7"])
    after = site.get()[0]

    assert before == {"allow": 200, "refuse": 503}[without_rules]
    assert after == 200


def test_a_request_that_cannot_be_judged(
    kind: str, agent: Agent, backend: Backend, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """What goes wrong in judging costs no request its answer, and is told."""
    in_force(agent, backend, ip_blacklist=["203.0.113.9"])
    monkeypatch.setattr(DynamicRules, "decide", lambda *_args, **_more: 1 / 0)

    status = Site(kind, agent).get()[0]

    assert status == 200
    assert "could not be judged by the rules (ZeroDivisionError)" in caplog.text


def test_without_an_agent_everything_passes(kind: str) -> None:
    """Rules come through an agent; where there is none there are no rules."""
    assert Site(kind, None).get()[0] == 200  # type: ignore[arg-type]


def test_websockets_are_refused_too(agent: Agent, backend: Backend, arrived: Arrived) -> None:
    """A banned client's websocket is closed before it is accepted; another one passes."""
    in_force(agent, backend, ip_blacklist=["203.0.113.9"])
    served: list[str] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        served.append(scope["client"][0])

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        middleware = AsgiMiddleware(app, agent=agent, enforce_rules=True)
        for address in ("203.0.113.9", "198.51.100.7"):
            scope = {"type": "websocket", "path": "/chat", "headers": [], "client": (address, 1)}
            await middleware(scope, None, send)  # type: ignore[arg-type]

    asyncio.run(run())

    assert sent == [{"type": "websocket.close", "code": 1008}]
    assert served == ["198.51.100.7"]
    assert arrived(agent)[0]["event_type"] == "ip_blocked"
