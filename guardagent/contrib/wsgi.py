"""The WSGI middleware: for any application, whatever it is made with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import Any

from guardagent.agent import Agent
from guardagent.contrib._enforce import Enforcer
from guardagent.contrib._options import WebOptions, split
from guardagent.contrib._request import Reporter

__all__ = ["GuardAgentMiddleware"]

_Environ = dict[str, Any]
_StartResponse = Callable[..., Any]
_Application = Callable[[_Environ, _StartResponse], Iterable[bytes]]

#: Where an application may leave the route's template; GuardAgentMiddleware's own key comes first.
_ROUTE = "guardagent.route"
_REASONS = {
    403: "403 Forbidden",
    429: "429 Too Many Requests",
    503: "503 Service Unavailable",
}


class GuardAgentMiddleware:
    """Reports what happens to a WSGI application's requests (PEP 3333).

    The answer passes as it is: the iterable of the application goes to the server, so that files
    are sent as files. Only that of an application which has told no status yet, such as a
    generator, is watched until it ends. What is measured is the time until the status is known. A
    request that its client gives up is measured like any other.

    Bottle's routes are known; other applications may leave the template of the route they chose in
    `environ["guardagent.route"]`.

    Args:
        app: the application.
        agent: report to this one; otherwise to the process-wide one.
        options: fields of `WebOptions` and of `AgentConfig`; with the latter it makes an agent.

    Raises:
        ConfigError: an option is wrong.
    """

    def __init__(self, app: _Application, *, agent: Agent | None = None, **options: Any) -> None:
        self._app = app
        settings, chosen = split(WebOptions, options)
        self._reporter = Reporter(__name__, chosen, agent=agent, settings=settings)
        self._reporter.end_with(self)
        self._enforcer = Enforcer(self._reporter) if chosen.enforce_rules else None

    @property
    def agent(self) -> Agent | None:
        """The agent; None as long as there is none."""
        return self._reporter.agent

    def __call__(self, environ: _Environ, start_response: _StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        if self._enforcer is not None:
            query = environ.get("QUERY_STRING", "")
            refusal = self._enforcer.judge(self._describe(environ), query)
            if refusal is not None:
                body = refusal.body.encode()
                headers = [*refusal.headers, ("Content-Length", str(len(body)))]
                start_response(_REASONS[refusal.status], headers)
                return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]
        began = monotonic()
        status: str | None = None
        returned = False

        def start(given: str, *more: Any) -> Any:
            nonlocal status
            is_late = returned and status is None
            status = given
            write = start_response(given, *more)
            if is_late:  # a generator's code begins when the server asks it for the first bytes
                self._finish(environ, given, monotonic() - began)
            return write

        def fail(error: BaseException) -> None:
            if status is None or not returned:
                self._fail(environ, error, monotonic() - began)

        try:
            answer = self._app(environ, start)
        except BaseException as error:
            fail(error)
            raise
        returned = True
        if status is None:
            return _Unbegun(answer, fail)
        self._finish(environ, status, monotonic() - began)
        return answer

    def _finish(self, environ: _Environ, status: str, seconds: float) -> None:
        code = int(status[:3]) if status[:3].isdecimal() else 0
        self._measure(environ, code, seconds)
        self._reporter.answered(code, self._describe, environ, seconds=seconds)

    def _fail(self, environ: _Environ, error: BaseException, seconds: float) -> None:
        self._measure(environ, 0, seconds)
        self._reporter.failed(error, self._describe, environ)

    def _measure(self, environ: _Environ, status: int, seconds: float) -> None:
        if self._reporter.measures:
            method = environ.get("REQUEST_METHOD", "")
            self._reporter.measure(_route(environ), method, status, seconds)

    def _describe(self, environ: _Environ) -> dict[str, Any]:
        method = environ.get("REQUEST_METHOD")
        return self._reporter.fields_of(environ, _path(environ), method, _route(environ))


class _Unbegun:
    """The answer of an application whose code runs only when the server asks for its first bytes.

    Args:
        answer: the application's iterable.
        fail: told what is raised in it.
    """

    def __init__(self, answer: Iterable[bytes], fail: Callable[[BaseException], object]) -> None:
        self._answer = answer
        self._fail = fail
        if hasattr(answer, "close"):
            self.close = answer.close

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._answer
        except BaseException as error:
            self._fail(error)
            raise


def _path(environ: _Environ) -> str:
    """Return the path; PEP 3333 has its bytes in a text as if they were Latin-1."""
    path: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return path.encode("latin-1", "replace").decode("utf-8", "replace")


def _route(environ: _Environ) -> str | None:
    route = environ.get(_ROUTE)
    if route is None:
        route = getattr(environ.get("bottle.route"), "rule", None)
    return route if isinstance(route, str) else None
