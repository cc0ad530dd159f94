"""Refused keys and redirects: everything is kept, and the key goes nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import MakeAgent
from tests.support.accounts import (
    Errors,
    assert_balanced,
    assert_delivered,
    capture,
)
from tests.support.answers import (
    Redirect,
    RequireKey,
    Status,
)
from tests.support.backend import Backend


@pytest.mark.parametrize("code", [401, 403, 407])
def test_refused_key_keeps_everything(backend: Backend, make_agent: MakeAgent, code: int) -> None:
    """A refused key pauses delivery, loses nothing, and is tried again."""
    errors = Errors()
    backend.script(Status(code, body=b'{"detail": "no"}'))
    agent = make_agent(on_error=errors)
    keys = capture(agent, 5)
    assert errors.wait()
    assert agent.stats().pending == 5
    assert agent.stats().breaker == "closed"

    assert agent.flush(timeout=15.0)
    assert_delivered(agent, backend, keys)


def test_key_is_read_again_after_a_refusal(backend: Backend, make_agent: MakeAgent) -> None:
    """With a callable for a key, a rotated key is used at once and for what was waiting."""
    current = ["old-key-0123456789"]
    given: list[str] = []

    def read_key() -> str:
        given.append(current[0])
        return current[0]

    backend.default = RequireKey("new-key-0123456789")
    errors = Errors()
    agent = make_agent(api_key=read_key, on_error=errors)
    keys = capture(agent, 5)
    assert errors.wait()
    assert backend.received == []

    current[0] = "new-key-0123456789"

    assert agent.stop(timeout=10.0)
    assert_delivered(agent, backend, keys)
    assert backend.requests[-1].headers["x-api-key"] == "new-key-0123456789"
    assert given[0] == "old-key-0123456789"


def test_key_in_a_file_can_be_rotated(
    backend: Backend, make_agent: MakeAgent, tmp_path: Path
) -> None:
    """With a path for a key, what the file holds is read for each batch."""
    file = tmp_path / "key"
    file.write_text("old-key-0123456789\n")
    backend.default = RequireKey("old-key-0123456789")
    agent = make_agent(api_key=file)
    keys = capture(agent, 5)
    assert agent.flush(timeout=10.0)

    file.write_text("new-key-0123456789\n")
    backend.default = RequireKey("new-key-0123456789")
    keys += capture(agent, 5)

    assert agent.flush(timeout=10.0)
    assert_delivered(agent, backend, keys)
    assert len(backend.requests) == 2


@pytest.mark.parametrize("failure", [LookupError("no key"), "", "a\nb", None])
def test_key_source_that_fails_keeps_everything(
    backend: Backend, make_agent: MakeAgent, failure: object
) -> None:
    """A callable that raises, or gives no usable key, is like a refused key."""
    answers = [failure]

    def read_key() -> object:
        answer = answers.pop() if answers else "good-key-0123456789"
        if isinstance(answer, Exception):
            raise answer
        return answer

    agent = make_agent(api_key=read_key)

    keys = capture(agent, 5)

    assert agent.flush(timeout=15.0)
    assert_delivered(agent, backend, keys)
    assert {request.headers["x-api-key"] for request in backend.requests} == {"good-key-0123456789"}


@pytest.mark.parametrize("code", [300, 301, 302, 303, 304, 307, 308])
def test_redirect_is_not_followed(backend: Backend, make_agent: MakeAgent, code: int) -> None:
    """The key never goes where a redirect points; the events stay until the backend takes them."""
    with Backend() as elsewhere:
        backend.script(Redirect(f"{elsewhere.url}/api/v1/events", code))
        errors = Errors()
        agent = make_agent(on_error=errors)
        keys = capture(agent, 5)
        assert errors.wait()
        assert agent.stats().pending == 5

        assert agent.stop(timeout=10.0)

        assert_delivered(agent, backend, keys)
        assert elsewhere.connections == 0
        assert {request.method for request in backend.all_requests} == {"POST"}


def test_redirect_to_the_same_host_is_not_followed(backend: Backend, make_agent: MakeAgent) -> None:
    """Nor does a redirect turn a POST into a GET on the backend itself."""
    backend.default = Redirect("/api/v1/rules", 302)
    agent = make_agent()
    capture(agent, 5)
    assert backend.wait_for_requests(1)

    agent.stop(timeout=2.0)

    assert_balanced(agent)
    assert agent.stats().delivered == 0
    assert backend.rules_requests == []
