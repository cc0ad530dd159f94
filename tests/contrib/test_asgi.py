"""The ASGI middleware, around bare, FastAPI, Starlette, Litestar and Falcon applications."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import falcon.asgi
import httpx
import litestar
import pytest
from fastapi import FastAPI, HTTPException, WebSocket
from litestar.middleware import DefineMiddleware
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

import guardagent
from guardagent import Agent, ConfigError
from guardagent.contrib.asgi import GuardAgentMiddleware
from tests.conftest import MakeAgent, quick_settings
from tests.contrib.conftest import Arrived, requests_in
from tests.support.answers import Held
from tests.support.backend import Backend

Message = dict[str, Any]
App = Callable[..., Awaitable[None]]

SCOPE: Message = {
    "type": "http",
    "method": "GET",
    "path": "/",
    "headers": [(b"user-agent", b"Mozilla/5.0")],
    "client": ("203.0.113.9", 4711),
}


def ask(app: Any, *paths: str, **options: Any) -> list[httpx.Response]:
    """Ask for paths as an HTTP client would."""

    async def run() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=app, client=("203.0.113.9", 4711))
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            return [await client.get(path, **options) for path in paths]

    return asyncio.run(run())


def converse(app: App, scope: Message, *received: Message) -> list[Message]:
    """Serve one connection with the given messages; return what was sent."""
    sent: list[Message] = []
    waiting = list(received)

    async def receive() -> Message:
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(app(dict(scope), receive, send))  # type: ignore[arg-type]
    return sent


def answering(status: int) -> App:
    async def app(_scope: Message, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"Done."})

    return app


def test_refused_requests_are_events(agent: Agent, arrived: Arrived) -> None:
    """An answer with one of the statuses to capture is an event that says who asked for what."""
    app = GuardAgentMiddleware(answering(401), agent=agent)

    (answer,) = ask(
        app, "/login?q=secret", headers={"User-Agent": "curl", "X-Forwarded-For": "6.6.6.6"}
    )

    assert (answer.status_code, answer.text) == (401, "Done.")
    (event,) = arrived(agent)
    assert event["event_type"] == "authentication_failed"
    assert event["ip_address"] == "203.0.113.9"
    assert (event["endpoint"], event["method"]) == ("/login", "GET")
    assert (event["status_code"], event["user_agent"]) == (401, "curl")
    assert event["handler_name"] == "guardagent.contrib.asgi"


def test_addresses_behind_proxies(agent: Agent, arrived: Arrived) -> None:
    """Several lines of the header are one list; only the trusted proxies' end of it counts."""
    app = GuardAgentMiddleware(
        answering(403), agent=agent, trusted_proxies=2, country_header="CF-IPCountry"
    )
    lines = [(b"x-forwarded-for", b"6.6.6.6"), (b"x-forwarded-for", b"198.51.100.7, 10.0.0.2"),
             (b"cf-ipcountry", b"CH")]  # fmt: skip

    converse(app, {**SCOPE, "headers": lines})

    (event,) = arrived(agent)
    assert (event["ip_address"], event["country"]) == ("198.51.100.7", "CH")


def test_no_address_is_no_error(agent: Agent, arrived: Arrived) -> None:
    """A server behind a unix socket tells none."""
    converse(GuardAgentMiddleware(answering(403), agent=agent), {**SCOPE, "client": None})

    assert [event["ip_address"] for event in arrived(agent)] == [""]


def make_fastapi(agent: Agent | None = None, **options: Any) -> FastAPI:
    app = FastAPI()
    app.add_middleware(GuardAgentMiddleware, agent=agent, **options)

    @app.get("/orders/{number}")
    async def order(number: int) -> None:
        raise HTTPException(403)

    @app.get("/login")
    async def login() -> None:
        raise ValueError("the secret is hunter2")

    @app.websocket("/chat")
    async def chat(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text((await socket.receive_text()).upper())
        await socket.close()

    return app


def test_fastapi(agent: Agent, arrived: Arrived) -> None:
    """Routes are known by their templates, and what is not found has none."""
    answers = ask(make_fastapi(agent), "/orders/5", "/orders/6", "/nowhere")

    assert [answer.status_code for answer in answers] == [403, 403, 404]
    assert [event["metadata"] for event in arrived(agent)] == [{"route": "/orders/{number}"}] * 2
    counts = {one["tags"]["endpoint"]: one["value"] for one in arrived(agent, "metrics")
              if one["metric_type"] == "request_count"}  # fmt: skip
    assert counts == {"/orders/{number}": 2, "(no route)": 1}


def test_exceptions_reach_the_server(agent: Agent, arrived: Arrived) -> None:
    """An exception passes through the middleware, and is an event where it matters."""
    with pytest.raises(ValueError, match="hunter2"):
        ask(make_fastapi(agent), "/login")

    (event,) = arrived(agent)
    assert (event["event_type"], event["reason"]) == ("unhandled_exception", "ValueError")
    assert event["metadata"] == {"route": "/login", "exception": "builtins.ValueError"}
    rates = [one["value"] for one in arrived(agent, "metrics")
             if one["metric_type"] == "error_rate"]  # fmt: skip
    assert rates == [1.0]


def test_starlette(agent: Agent, arrived: Arrived) -> None:
    """Streams pass part by part, in mounted applications too."""

    async def parts(_request: Any) -> StreamingResponse:
        return StreamingResponse(iter(["a", "b", "c"]), status_code=429)

    app = Starlette(
        routes=[Mount("/files", routes=[Route("/{name}", parts)])],
        middleware=[Middleware(GuardAgentMiddleware, agent=agent)],
    )

    (answer,) = ask(app, "/files/a")

    assert answer.text == "abc"
    (event,) = arrived(agent)
    assert (event["event_type"], event["endpoint"]) == ("rate_limited", "/files/a")


def test_litestar(agent: Agent, arrived: Arrived) -> None:
    """Its template is found as well."""

    @litestar.get("/orders/{number:int}", sync_to_thread=False)
    def order() -> None:
        raise litestar.exceptions.PermissionDeniedException("Not your order.")

    middleware = DefineMiddleware(GuardAgentMiddleware, agent=agent)
    app = litestar.Litestar([order], middleware=[middleware], logging_config=None)

    (answer,) = ask(app, "/orders/5")

    assert answer.status_code == 403
    (event,) = arrived(agent)
    assert event["metadata"]["route"] == "/orders/{number}"


class LeavesRoute:
    """What the manual shows for Falcon."""

    async def process_resource(self, req: Any, _resp: Any, _resource: Any, _params: Any) -> None:
        req.scope["guardagent.route"] = req.uri_template


class Order:
    async def on_get(self, _req: Any, _resp: Any, number: str) -> None:
        raise falcon.HTTPForbidden(description=f"Not your order: {number}.")


def test_falcon(agent: Agent, arrived: Arrived) -> None:
    """An application may leave its route for the middleware."""
    app = falcon.asgi.App(middleware=[LeavesRoute()])
    app.add_route("/orders/{number}", Order())

    ask(GuardAgentMiddleware(app, agent=agent), "/orders/5")

    assert arrived(agent)[0]["metadata"] == {"route": "/orders/{number}"}


def test_websockets_are_left_alone(agent: Agent, arrived: Arrived) -> None:
    """Their messages pass, and they are neither measured nor events."""
    scope = {
        "type": "websocket", "path": "/chat", "raw_path": b"/chat", "query_string": b"",
        "headers": [], "subprotocols": [], "client": ("203.0.113.9", 1), "root_path": "",
    }  # fmt: skip

    sent = converse(
        make_fastapi(agent),
        scope,
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "hello"},
    )

    assert [one["type"] for one in sent] == [
        "websocket.accept",
        "websocket.send",
        "websocket.close",
    ]
    assert sent[1]["text"] == "HELLO"
    assert arrived(agent) == arrived(agent, "metrics") == []


def test_messages_pass_as_they_are(agent: Agent) -> None:
    """Extensions of the protocol too: what is sent is the application's own object."""
    messages = [
        {"type": "http.response.start", "status": 103, "headers": []},
        {"type": "http.response.start", "status": 200, "headers": [], "trailers": True},
        {"type": "http.response.pathsend", "path": "/tmp/x"},
    ]

    async def app(_scope: Message, _receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    sent = converse(GuardAgentMiddleware(app, agent=agent), SCOPE)

    assert [a is b for a, b in zip(sent, messages, strict=True)] == [True, True, True]


def test_aborted_requests(agent: Agent, arrived: Arrived) -> None:
    """A client that leaves cancels the application as ever; it is measured, and no event."""

    async def waiting(_scope: Message, _receive: Any, _send: Any) -> None:
        await asyncio.Event().wait()

    async def run() -> None:
        app = GuardAgentMiddleware(waiting, agent=agent, capture_exceptions="all")
        task = asyncio.create_task(app(dict(SCOPE), None, None))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())

    assert arrived(agent) == []
    counts = [one["tags"]["status"] for one in arrived(agent, "metrics")
              if one["metric_type"] == "request_count"]  # fmt: skip
    assert counts == ["none"]


def test_no_answer_at_all(agent: Agent, arrived: Arrived) -> None:
    """An application that gives up quietly is measured, and nothing is made up for it."""

    async def silent(_scope: Message, _receive: Any, _send: Any) -> None: ...

    sent = converse(GuardAgentMiddleware(silent, agent=agent), SCOPE)

    assert sent == []
    assert {one["tags"].get("status", "") for one in arrived(agent, "metrics")} == {"none", ""}


# -- lifespan ------------------------------------------------------------------------------------

STARTUP, SHUTDOWN = {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}
ENDED = ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def without_lifespan(scope: Message, _receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await answering(401)(scope, _receive, send)


async def ignoring_lifespan(scope: Message, _receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await answering(401)(scope, _receive, send)


@pytest.fixture(params=["fastapi", "ignored"])
def any_app(request: pytest.FixtureRequest) -> App:
    apps: dict[str, Any] = {"fastapi": FastAPI(), "ignored": ignoring_lifespan}
    app: App = apps[request.param]
    return app


def test_started_and_flushed_with_the_application(
    any_app: App, make_agent: MakeAgent, backend: Backend
) -> None:
    """Threads run from the startup on, and what is pending is delivered before the shutdown ends.

    That holds for an application that leaves the lifespan alone too.
    """
    agent = make_agent(flush_interval=60.0)
    app = GuardAgentMiddleware(any_app, agent=agent)
    threads: list[int] = []
    delivered: list[int] = []

    started = asyncio.Event()

    async def send(message: Message) -> None:
        delivered.append(len(backend.received))
        threads.append(agent.stats().threads_alive)
        started.set()

    async def run() -> None:
        messages: asyncio.Queue[Message] = asyncio.Queue()
        messages.put_nowait(STARTUP)
        task = asyncio.create_task(app({"type": "lifespan"}, messages.get, send))
        await started.wait()
        agent.capture({"event_type": "ip_banned"})
        messages.put_nowait(SHUTDOWN)
        await task

    asyncio.run(run())

    assert threads[0] > 0
    assert delivered == [0, 1]


def test_failing_startups_stay_failures(agent: Agent) -> None:
    """What an application raises or says in its own lifespan reaches the server."""

    async def app(_scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        raise ValueError("no database")

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return STARTUP

    with pytest.raises(ValueError, match="no database"):
        asyncio.run(GuardAgentMiddleware(app, agent=agent)({"type": "lifespan"}, receive, send))

    assert [one["type"] for one in sent] == ["lifespan.startup.failed"]


@pytest.mark.parametrize(
    "error", [NotImplementedError("http only"), ValueError("unknown scope"), OSError("no database")]
)
def test_exceptions_at_once_are_the_servers(make_agent: MakeAgent, error: Exception) -> None:
    """Whether it means "no lifespan" or "no database" the server decides; the agent is started."""
    agent = make_agent(flush_interval=60.0)

    async def app(_scope: Message, _receive: Any, _send: Any) -> None:
        raise error

    with pytest.raises(type(error)):
        converse(GuardAgentMiddleware(app, agent=agent), {"type": "lifespan"})

    assert agent.stats().threads_alive > 0


def test_the_loop_goes_on_during_the_flush(make_agent: MakeAgent, backend: Backend) -> None:
    """A backend that takes its time holds up the end of the application, but never the loop."""
    held = Held()
    backend.default = held
    agent = make_agent(shutdown_timeout=10.0)
    agent.capture({"event_type": "ip_banned"})
    app = GuardAgentMiddleware(ignoring_lifespan, agent=agent)
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def run() -> bool:
        messages: asyncio.Queue[Message] = asyncio.Queue()
        messages.put_nowait(SHUTDOWN)
        task = asyncio.create_task(app({"type": "lifespan"}, messages.get, send))
        while not backend.wait_for_requests(1, timeout=0.0):  # noqa: ASYNC110 - it has no loop
            await asyncio.sleep(0)
        was_held_up = not task.done() and not sent
        held.let_go()
        await task
        return was_held_up

    assert asyncio.run(run())
    assert [one["type"] for one in sent] == ["lifespan.shutdown.complete"]
    assert len(backend.received) == 1


def test_lifespan_off(agent: Agent, arrived: Arrived) -> None:
    """Where the server tells of no lifespan, the first event starts the agent."""
    ask(GuardAgentMiddleware(without_lifespan, agent=agent), "/")

    assert len(arrived(agent)) == 1


def test_another_loop_than_asyncios(make_agent: MakeAgent, backend: Backend) -> None:
    """Where asyncio does not run, the end of the application flushes all the same."""
    agent = make_agent(flush_interval=60.0)
    app = GuardAgentMiddleware(ignoring_lifespan, agent=agent)
    agent.capture({"event_type": "ip_banned"})
    delivered: list[int] = []

    async def receive() -> Message:
        return SHUTDOWN

    async def send(_message: Message) -> None:
        delivered.append(len(backend.received))

    with pytest.raises(StopIteration):
        app({"type": "lifespan"}, receive, send).send(None)

    assert delivered == [1]


def test_no_thread_for_the_flush(
    make_agent: MakeAgent, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no thread can be started any more, the flush works in the loop's."""
    agent = make_agent(flush_interval=60.0)
    app = GuardAgentMiddleware(ignoring_lifespan, agent=agent)
    agent.capture({"event_type": "ip_banned"})
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "guardagent-shutdown":
            raise RuntimeError("can't start new thread at interpreter shutdown")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)

    sent = converse(app, {"type": "lifespan"}, SHUTDOWN)

    assert [one["type"] for one in sent] == ["lifespan.shutdown.complete"]
    assert len(backend.received) == 1


#: Takes the signal as uvicorn does: with a handler of its own, after which it puts back the former
#: one and raises the signal again.
SERVER = """
import asyncio, signal, sys, threading
from guardagent import Agent, AgentConfig
from guardagent.contrib.asgi import GuardAgentMiddleware


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 403, "headers": []})


agent = Agent(AgentConfig(api_key="k", endpoint=sys.argv[1], flush_on_sigterm=True))
served = GuardAgentMiddleware(app, agent=agent)
ended = threading.Event()
former = signal.signal(signal.SIGTERM, lambda *_: ended.set())


async def send(message):
    pass


async def main():
    print("ready", flush=True)
    while not ended.is_set():
        await asyncio.sleep(0.01)
    # The last request comes when the server is about to end.
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    await served(scope, None, send)


asyncio.run(main())
signal.signal(signal.SIGTERM, former)
signal.raise_signal(signal.SIGTERM)
while True:
    ended.wait(0.01)
"""


@pytest.mark.slow
def test_sigterm_without_a_lifespan(backend: Backend, tmp_path: Path) -> None:
    """With `flush_on_sigterm` what the last request reported arrives, and the status stays."""
    script = tmp_path / "server.py"
    script.write_text(SERVER, encoding="utf-8")
    process = subprocess.Popen([sys.executable, script, backend.url], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()

        process.send_signal(signal.SIGTERM)

        status = process.wait(30)
    assert status == -signal.SIGTERM
    types = {one.get("event_type") or one["metric_type"] for request in backend.requests
             for one in request.records}  # fmt: skip
    assert types == {"access_denied", "request_count", "response_time", "error_rate"}


def test_no_agent_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Without any agent the application works, its lifespan too; that is said once."""
    app = GuardAgentMiddleware(
        Starlette(routes=[Route("/", lambda _r: PlainTextResponse("", 401))])
    )

    answers = ask(app, "/", "/")
    sent = converse(app, {"type": "lifespan"}, STARTUP, SHUTDOWN)

    assert [answer.status_code for answer in answers] == [401, 401]
    assert [one["type"] for one in sent] == ENDED
    assert len([line for line in caplog.messages if "there is no agent" in line]) == 1


def test_the_default_agent_may_come_later(arrived: Arrived, backend: Backend) -> None:
    """Without settings it uses the process-wide agent, whenever that is made."""
    app = GuardAgentMiddleware(answering(403))

    first = converse(app, SCOPE)[0]["status"]
    agent = guardagent.init(**quick_settings(backend.url))
    converse(app, {**SCOPE, "path": "/later"})

    assert first == 403
    assert [event["endpoint"] for event in arrived(agent)] == ["/later"]
    assert requests_in(arrived(agent, "metrics")) == 2


def test_wrong_options_are_named() -> None:
    """A wrong option says which one."""
    with pytest.raises(ConfigError, match="trusted_proxies: given 99"):
        GuardAgentMiddleware(without_lifespan, trusted_proxies=99)
