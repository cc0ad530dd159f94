"""All four Guard libraries report through guardagent what they report through guard-agent."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.contrib.guard.parts import SCRIPT, attack, complaints, reports, site
from tests.support.backend import Backend
from tests.test_docs import ADDRESS, CHECKOUT, VISITOR, code_blocks, run

LIBRARIES = ("guard_agent", "guard", "flaskapi_guard", "djangoapi_guard", "tornadoapi_guard")
MISSING = [name for name in LIBRARIES if find_spec(name) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


@pytest.mark.parametrize("framework", ["fastapi", "flask", "django", "tornado"])
def test_libraries_report_as_through_guard_agent(framework: str) -> None:
    """The same events and metrics, with guard-agent hidden, and not a line of a failed handler."""
    # Only guardagent can serve a Tornado middleware that is made before its loop.
    given = {"framework": framework, "replaced": True, "hidden": True, "early": True}
    with site(framework=framework) as theirs, site(**given) as ours:
        answers = []
        for one in (theirs, ours):
            first = one.ask()
            assert one.wait_for("dynamic_rule_applied")
            answers.append([first, *attack(one)])
        ended = ours.end()  # within the flush interval: what came last is delivered at SIGTERM
        theirs.settle()

        assert answers[0] == answers[1]
        assert answers[0][-2:] == [403, 403]  # by dynamic rules
        assert reports(ours) == reports(theirs)
        assert complaints(ended) == []
        assert not ours.arrivals("refusal")


@pytest.mark.parametrize(
    ("framework", "server"),
    [
        ("flask", ["gunicorn", "--preload", "--workers=1", "--threads=4", "--bind=fd://{fd}"]),
        ("fastapi", ["uvicorn", "--fd={fd}", "--workers=2"]),
    ],
    ids=["gunicorn-preload", "uvicorn"],
)
def test_servers_lose_nothing_at_sigterm(framework: str, server: list[str]) -> None:
    """What was reported just before a server is told to end arrives; guard-agent is installed."""
    # No flush but the last one: an interval longer than the test.
    settings = {"settings": {"flush_interval": 600, "buffer_size": 10_000}}
    with site("hosting.py", framework=framework, server=server, replaced=True, **settings) as one:
        answers = [one.ask(), one.ask(SCRIPT, ip="10.0.0.2")]
        ended = one.end()

        found = {event.type for event in one.arrivals("event")}
        assert answers == [200, 400]
        assert {"security_headers_applied", "penetration_attempt"} <= found
        assert complaints(ended) == []


def test_the_page_delivers(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks of the manual's page run as one program; what they report arrives at its exit."""
    monkeypatch.setenv("HOME", str(tmp_path))
    page = CHECKOUT / "docs" / "integrations" / "guard.rst"
    source = "\n".join([*code_blocks(page), VISITOR]).replace(ADDRESS, backend.url)

    ended = run(tmp_path, "page.py", source)

    assert ended.returncode == 0, ended.stderr
    assert {
        event["event_type"] for one in backend.requests for event in one.document["events"]
    } == {
        "login_failed",
        "security_headers_applied",
    }
