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
    """The same events and metrics, guard-agent installed or not, and no word of failed handlers."""
    # Only guardagent can serve a Tornado middleware that is made before its loop.
    ours = {"framework": framework, "replaced": True, "early": True}
    with (
        site(framework=framework) as theirs,
        site(**ours, hidden=True) as alone,
        site(**ours) as beside,
    ):
        answers, ended = [], []
        for one in (theirs, alone, beside):
            first = one.ask()
            assert one.wait_for("dynamic_rule_applied")
            answers.append([first, *attack(one)])
            if one is not theirs:  # within the flush interval: what came last arrives at SIGTERM
                ended.append(one.end())
        theirs.settle()

        assert answers[0] == answers[1] == answers[2]
        assert answers[0][-2:] == [403, 403]  # by dynamic rules
        assert reports(alone) == reports(beside) == reports(theirs)
        assert [complaints(outcome) for outcome in ended] == [[], []]
        assert not alone.arrivals("refusal") + beside.arrivals("refusal")


@pytest.mark.parametrize(
    ("framework", "server"),
    [
        ("flask", ["gunicorn", "--preload", "--workers=1", "--threads=4", "--bind=fd://{fd}"]),
        ("django", ["gunicorn", "--preload", "--workers=1", "--threads=4", "--bind=fd://{fd}"]),
        ("fastapi", ["uvicorn", "--fd={fd}", "--workers=2"]),
    ],
    ids=["flask-gunicorn-preload", "django-gunicorn-preload", "uvicorn"],
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
