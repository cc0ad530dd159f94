"""The application of the demonstration: a small web shop that reports what happens to it."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, abort, g, request

from guardagent import DynamicRules, SecurityEvent, SecurityMetric
from guardagent._clock import SYSTEM_CLOCK
from guardagent.demo import pages
from guardagent.demo.probe import ProbedAgent
from guardagent.demo.serving import serving_wsgi
from guardagent.demo.site import ATTACK, BLOCKED

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from guardagent import AgentConfig

__all__ = ["Shop", "create_shop"]

Capture = Callable[[SecurityEvent | SecurityMetric], bool]
Rules = Callable[[], DynamicRules | None]

#: What hostile requests look like. A few signs are enough here; real ones belong to Guard.
_SIGNS = {
    "sql_injection": re.compile(r"'\s*or\b|union\s+select|;\s*drop\b|--\s*$", re.IGNORECASE),
    "path_traversal": re.compile(r"\.\./|/etc/passwd", re.IGNORECASE),
    "xss": re.compile(r"<script|onerror\s*=", re.IGNORECASE),
}

_LOGIN_FAILURES_ALLOWED = 5
_REQUESTS_ALLOWED = 25
_RATE_WINDOW = 5.0


class Shop:
    """The shop as a site that looks for attacks itself.

    Args:
        config: of its agent.
    """

    guard_library = ""
    rate = 40.0

    def __init__(self, config: AgentConfig) -> None:
        self.agent = ProbedAgent(config)
        self._app = create_shop(self.agent.capture, lambda: self.agent.rules)

    def serving(self) -> AbstractContextManager[int]:
        """Serve on loopback; gives the port."""
        return serving_wsgi(self._app)

    def obey(self, rules: DynamicRules) -> bool:
        """Do nothing: it asks the agent for each request."""
        return True


def create_shop(capture: Capture, rules: Rules = lambda: None) -> Flask:
    """Build the application.

    Args:
        capture: `Agent.capture`, or something like it.
        rules: returns `Agent.rules`; asked for each request.
    """
    app = Flask("shop")
    guard = _Guard(capture, rules)
    app.before_request(guard.inspect)
    app.after_request(guard.measure)

    @app.get("/")
    def home() -> str:
        return pages.WELCOME

    @app.get("/products/<int:number>")
    def product(number: int) -> dict[str, Any]:
        return pages.product(number)

    @app.get("/search")
    def search() -> dict[str, Any]:
        return pages.results(request.args.get("q", ""))

    @app.get("/files/<path:name>")
    def download(name: str) -> str:
        return pages.download(name)

    @app.post("/login")
    def login() -> str:
        if not pages.is_password(request.form.get("password")):
            guard.login_failed()
            abort(401)
        return pages.GREETING

    return app


class _Guard:
    """Looks at each request, refuses hostile ones and reports them."""

    def __init__(self, capture: Capture, rules: Rules) -> None:
        self._capture = capture
        self._rules = rules
        self._lock = threading.Lock()  # guards the three below
        self._failures: Counter[str] = Counter()
        self._requests: Counter[str] = Counter()
        self._window = 0

    def inspect(self) -> None:
        """Refuse a request that the rules forbid, that looks hostile, or is one too many."""
        g.began = SYSTEM_CLOCK.monotonic()
        self._obey_rules()
        if self._count(_address()) > _REQUESTS_ALLOWED:
            self._report("rate_limited", "throttled", "too many requests", status_code=429)
            abort(429)
        text = f"{request.path}?{'&'.join(request.args.values())}"
        for name, sign in _SIGNS.items():
            found = sign.search(text)
            if found is not None:
                self._report(
                    ATTACK,
                    "request_blocked",
                    f"{name} pattern in the address",
                    status_code=403,
                    pattern_matched=found.group(),
                    rule_type=name,
                    metadata={"query": dict(request.args), "headers": dict(request.headers)},
                )
                abort(403)

    def _obey_rules(self) -> None:
        rules = self._rules()
        if rules is None:
            return
        decision = rules.decide(
            ip=_address(),
            path=request.full_path,
            method=request.method,
            user_agent=request.user_agent.string,
        )
        if not decision.allowed:
            why = f"{decision.reason}: {decision.rule}"
            self._report(
                BLOCKED, "request_blocked", why, status_code=403, rule_type=decision.reason
            )
            abort(403)

    def login_failed(self) -> None:
        """Report a failed login, and at the sixth that its sender is banned."""
        address = _address()
        with self._lock:
            self._failures[address] += 1
            failures = self._failures[address]
        self._report("authentication_failed", "logged", "wrong password", status_code=401)
        if failures == _LOGIN_FAILURES_ALLOWED + 1:
            self._report("ip_banned", "banned", f"{failures} failed logins", status_code=401)

    def measure(self, response: Response) -> Response:
        """Report how long the answer took."""
        seconds = SYSTEM_CLOCK.monotonic() - g.began
        tags = {"endpoint": request.endpoint or "none", "status": str(response.status_code)}
        self._capture(SecurityMetric(metric_type="response_time", value=seconds, tags=tags))
        return response

    def _report(self, event_type: str, action: str, reason: str, **fields: Any) -> None:
        event = SecurityEvent(
            event_type=event_type,
            ip_address=_address(),
            user_agent=request.user_agent.string,
            action_taken=action,
            reason=reason,
            endpoint=request.path,
            method=request.method,
            **fields,
        )
        self._capture(event)

    def _count(self, address: str) -> int:
        window = int(SYSTEM_CLOCK.monotonic() / _RATE_WINDOW)
        with self._lock:
            if window != self._window:
                self._window = window
                self._requests.clear()
            self._requests[address] += 1
            return self._requests[address]


def _address() -> str:
    # Whoever can reach this port says so of himself; here that is the traffic beside us only.
    return request.headers.get("X-Forwarded-For", "127.0.0.1")
