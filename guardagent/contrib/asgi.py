"""The ASGI middleware: for any application, whatever it is made with."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from os import getpid
from time import monotonic
from typing import Any, overload

from guardagent import _signals
from guardagent.agent import Agent
from guardagent.contrib._address import client_address
from guardagent.contrib._enforce import Enforcer, Refusal
from guardagent.contrib._options import WebOptions, split
from guardagent.contrib._request import Reporter
from guardagent.contrib._termination import end_uvicorn_normally

__all__ = ["GuardAgentMiddleware"]

_Scope = MutableMapping[str, Any]
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_Application = Callable[[_Scope, _Receive, _Send], Awaitable[None]]

#: Where an application may leave the route's template; GuardAgentMiddleware's own key comes first.
_ROUTE = "guardagent.route"
#: The code with which a websocket is closed for breaking a policy (RFC 6455 7.4.1).
_POLICY_VIOLATION = 1008


class GuardAgentMiddleware:
    """Reports what happens to an ASGI application's requests.

    Every message passes as it is, and websockets are left alone unless rules are enforced. What is
    measured is the time until the answer's status is known. The agent is started with the
    application (lifespan), and flushed in a thread of its own when the application has shut down.
    Where the server or the application has no lifespan, what is pending is delivered at the exit
    of the process; a uvicorn server is asked to make that a normal one.

    Starlette's, FastAPI's and Litestar's routes are known; other applications may leave the
    template of the route they chose in `scope["guardagent.route"]`.

    Args:
        app: the application.
        agent: report to this one; otherwise to the process-wide one.
        options: fields of `WebOptions` and of `AgentConfig`; with the latter it makes an agent.

    Raises:
        ConfigError: an option is wrong.
    """

    # Starlette's types want an application that `options` cannot name, and Litestar names it.
    @overload
    def __init__(
        self, app: _Application, /, *, agent: Agent | None = None, **options: Any
    ) -> None: ...

    @overload
    def __init__(
        self, *, app: _Application, agent: Agent | None = None, **options: Any
    ) -> None: ...

    def __init__(  # type: ignore[misc] # of these two, one at a time
        self, app: _Application, *, agent: Agent | None = None, **options: Any
    ) -> None:
        self._app = app
        settings, chosen = split(WebOptions, options)
        self._reporter = Reporter(__name__, chosen, agent=agent, settings=settings)
        self._reporter.end_with(self)
        self._enforcer = Enforcer(self._reporter) if chosen.enforce_rules else None
        self._begun_in = 0  # the process in which there was a lifespan or a request
        known = self._reporter.agent
        if known is not None and known.config.flush_on_sigterm:
            # Now, before the server has a handler of its own: uvicorn ends by raising the signal
            # again with the handlers that were there before its own, and runs no exit handlers.
            _signals.install()

    @property
    def agent(self) -> Agent | None:
        """The agent; None as long as there is none."""
        return self._reporter.agent

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Serve one connection."""
        kind = scope["type"]
        if kind == "lifespan":
            self._begun_in = getpid()
            try:
                await _Life(self._reporter, self._app).serve(scope, receive, send)
            except Exception:
                # By this an application says that it has no lifespan, or that it cannot start; the
                # server decides which, and may go on without (ASGI, "Lifespan Protocol").
                end_uvicorn_normally()
                raise
            return
        if self._begun_in != getpid():
            self._begin_without_lifespan()
        if self._enforcer is not None and kind in ("http", "websocket"):
            query = (scope.get("query_string") or b"").decode("latin-1")
            refusal = await self._enforcer.judge_async(self._describe(scope), query)
            if refusal is not None:
                await _refuse(refusal, scope, send)
                return
        if kind == "http":
            await self._serve(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _begin_without_lifespan(self) -> None:
        """Start the agent, and see to it that somebody tells it of the end."""
        self._begun_in = getpid()
        _start(self._reporter)
        end_uvicorn_normally()

    async def _serve(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        began = monotonic()
        status = 0

        async def watch(message: _Message) -> None:
            nonlocal status
            if not status and message["type"] == "http.response.start":
                status = message["status"]
                self._finish(scope, status, monotonic() - began)
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except BaseException as error:
            if not status:
                self._measure(scope, 0, monotonic() - began)
            self._reporter.failed(error, self._describe, scope)
            raise
        if not status:  # the client left before there was an answer
            self._measure(scope, 0, monotonic() - began)

    def _finish(self, scope: _Scope, status: int, seconds: float) -> None:
        self._measure(scope, status, seconds)
        self._reporter.answered(status, self._describe, scope, seconds=seconds)

    def _measure(self, scope: _Scope, status: int, seconds: float) -> None:
        if self._reporter.measures:
            self._reporter.measure(_route(scope), scope.get("method", ""), status, seconds)

    def _describe(self, scope: _Scope) -> dict[str, Any]:
        options = self._reporter.options
        proxies = options.trusted_proxies
        client = scope.get("client")
        headers = scope["headers"]
        forwarded = _header(headers, b"x-forwarded-for") if proxies else None
        fields: dict[str, Any] = {
            "ip_address": client_address(client[0] if client else None, forwarded, proxies),
            "user_agent": _header(headers, b"user-agent"),
            "endpoint": scope["path"],
            "method": scope.get("method"),  # a websocket has none
        }
        if proxies and options.country_header:
            name = options.country_header.lower().encode("ascii")
            fields["country"] = _header(headers, name)
        route = _route(scope)
        if route is not None:
            fields["metadata"] = {"route": route}
        return fields


class _Life:
    """One lifespan of the application: the agent is started with it, and flushed after it."""

    def __init__(self, reporter: Reporter, app: _Application) -> None:
        self._reporter = reporter
        self._app = app

    async def serve(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        _start(self._reporter)
        has_asked = False

        async def listen() -> _Message:
            nonlocal has_asked
            has_asked = True
            return await receive()

        async def speak(message: _Message) -> None:
            if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                await self._flush()
            await send(message)

        await self._app(scope, listen, speak)
        if not has_asked:
            # It leaves the lifespan alone. The agent has one all the same: else nobody would tell
            # it of the end.
            await self._live(receive, send)

    async def _live(self, receive: _Receive, send: _Send) -> None:
        while (message := await receive())["type"] != "lifespan.shutdown":
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
        await self._flush()
        await send({"type": "lifespan.shutdown.complete"})

    async def _flush(self) -> None:
        agent = self._reporter.agent
        if agent is not None:
            await _in_thread(lambda: agent.flush(agent.config.shutdown_timeout))


def _start(reporter: Reporter) -> None:
    agent = reporter.agent
    if agent is not None:
        agent.start()


async def _in_thread(work: Callable[[], object]) -> None:
    """Do the work in a thread, and wait for it without holding up the loop.

    The thread is a daemon of our own: those of the loop's executor hold up the loop's end.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # another loop than asyncio's, at its very end: nothing waits any more
        work()
        return
    done = asyncio.Event()

    def run() -> None:
        try:
            work()
        finally:
            loop.call_soon_threadsafe(done.set)

    try:
        threading.Thread(target=run, name="guardagent-shutdown", daemon=True).start()
    except RuntimeError:  # no thread can be started any more
        work()
        return
    await done.wait()


async def _refuse(refusal: Refusal, scope: _Scope, send: _Send) -> None:
    if scope["type"] == "websocket":
        # Before it is accepted, a close makes the server answer the handshake with 403.
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        return
    body = refusal.body.encode()
    headers = [(name.lower().encode(), value.encode()) for name, value in refusal.headers]
    headers.append((b"content-length", str(len(body)).encode()))
    start = {"type": "http.response.start", "status": refusal.status, "headers": headers}
    await send(start)
    is_head = scope["method"] == "HEAD"
    await send({"type": "http.response.body", "body": b"" if is_head else body})


def _header(headers: Any, name: bytes) -> str | None:
    """Return a header; its lines, if there are several, joined with commas (RFC 9110 5.3)."""
    lines = [value for key, value in headers if key == name]
    return b",".join(lines).decode("latin-1") if lines else None


def _route(scope: _Scope) -> str | None:
    route = scope.get(_ROUTE)
    if route is None:
        route = scope.get("path_template")  # Litestar
    if route is None:
        route = getattr(scope.get("route"), "path", None)  # Starlette, FastAPI
    return route if isinstance(route, str) else None
