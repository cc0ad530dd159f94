"""The Flask extension: refused, failed and suspicious requests become events, all are measured."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from guardagent.agent import Agent
from guardagent.cli.extras import extra
from guardagent.contrib._enforce import Enforcer
from guardagent.contrib._options import WebOptions, split
from guardagent.contrib._request import Reporter
from guardagent.errors import ConfigError

with extra("flask", "flask"):
    import click
    from flask import (
        Flask,
        Request,
        Response,
        current_app,
        got_request_exception,
        request,
        request_finished,
    )
    from flask.cli import AppGroup
    from werkzeug.exceptions import SecurityError

__all__ = ["GuardAgent"]

_NAME = "guardagent"
#: Keys of the request's WSGI environment: when it began, and that an event tells of it already.
_BEGAN, _KNOWN = "guardagent.began", "guardagent.known"
#: Return the request itself, werkzeug's way: each attribute asked of its proxy looks for it anew.
_request: Callable[[], Request] = request._get_current_object  # type: ignore[attr-defined]


class GuardAgent:
    """Reports what happens to an application's requests.

    Settings come from `app.config["GUARDAGENT"]`, a mapping of `AgentConfig` and `WebOptions`
    fields in any case. Without any of the agent's, the process-wide agent is used.

    Args:
        app: the application; otherwise call `init_app`.
        agent: report to this one.
        options: fields of `WebOptions`; those of `app.config` beat them.

    Raises:
        ConfigError: a setting is wrong, or the application has the extension already.
    """

    def __init__(
        self, app: Flask | None = None, *, agent: Agent | None = None, **options: Any
    ) -> None:
        self._agent = agent
        self._options = options
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Connect to the application's signals; starts nothing."""
        if _NAME in app.extensions:
            raise ConfigError(f"{_NAME}: the application {app.name!r} has this extension already")
        settings, options = split(WebOptions, self._options, app.config.get("GUARDAGENT"))
        site = _Site(Reporter(__name__, options, agent=self._agent, settings=settings))
        app.extensions[_NAME] = site
        site.reporter.end_with(app)
        # The first that Flask calls in a request, and four times as cheap as `request_started`.
        app.url_value_preprocessor(site.begin)
        # Weak, as the application holds the site: signals never let go of what they hold.
        request_finished.connect(site.finish, app)
        got_request_exception.connect(site.fail, app)
        if options.enforce_rules:
            app.before_request(site.enforce)
        app.cli.add_command(_commands())

    @property
    def agent(self) -> Agent | None:
        """The agent of the current application; None as long as there is none."""
        site: _Site = current_app.extensions[_NAME]
        return site.reporter.agent


class _Site:
    """One application's part of the extension."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter
        self._enforcer = Enforcer(reporter)

    def begin(self, _endpoint: str | None, _values: dict[str, Any] | None) -> None:
        _request().environ[_BEGAN] = monotonic()

    def enforce(self) -> Response | None:
        query = request.query_string.decode("latin-1")
        refusal = self._enforcer.judge(self._describe(request), query)
        if refusal is None:
            return None
        request.environ[_KNOWN] = True
        return Response(refusal.body, refusal.status, refusal.headers)

    def finish(self, _app: Flask, response: Response, **_more: Any) -> None:
        self._close(response.status_code)

    def fail(self, app: Flask, exception: BaseException, **_more: Any) -> None:
        self.reporter.failed(exception, self._describe, request)
        propagate = app.config["PROPAGATE_EXCEPTIONS"]
        if app.testing or app.debug if propagate is None else propagate:
            self._close(0)  # the server gets the exception, and the application makes no answer

    def _close(self, status: int) -> None:
        """Measure the request and capture its answer; None of it without its beginning."""
        asked = _request()
        began = asked.environ.pop(_BEGAN, None)
        if began is None:
            return
        seconds = monotonic() - began
        reporter = self.reporter
        if reporter.measures:
            rule = asked.url_rule
            reporter.measure(None if rule is None else rule.rule, asked.method, status, seconds)
        is_known = _KNOWN in asked.environ
        if status == 400 and _has_untrusted_host(asked):
            reporter.event(
                "suspicious_request",
                self._describe(asked),
                status_code=400,
                response_time=seconds,
                reason="a host that is not trusted",
            )
            is_known = True
        reporter.answered(status, self._describe, asked, seconds=seconds, is_known=is_known)

    def _describe(self, asked: Request) -> dict[str, Any]:
        rule = asked.url_rule
        route = None if rule is None else rule.rule
        return self.reporter.fields_of(asked.environ, asked.path, asked.method, route)


def _has_untrusted_host(asked: Request) -> bool:
    try:
        _ = asked.host
    except SecurityError:
        return True
    return False


def _commands() -> AppGroup:
    group = AppGroup(_NAME, help="Look at the guardagent of this application.")

    @group.command()
    def status() -> None:
        """Say how the agent is set up, and what the backend says to it."""
        _tell("status")

    @group.command()
    def send() -> None:
        """Send one test event with the application's settings."""
        _tell("send")

    return group


def _tell(what: str) -> None:
    """Print a report on the application's agent; exit with 1 unless all is well."""
    from guardagent.contrib import _report

    site: _Site = current_app.extensions[_NAME]
    lines, is_well = {"status": _report.status, "send": _report.send}[what](site.reporter)
    click.echo("\n".join(lines))
    raise SystemExit(0 if is_well else 1)
