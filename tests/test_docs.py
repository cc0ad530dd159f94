"""The code in the README and the manual runs, and delivers what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.answers import Status
from tests.support.backend import Backend

CHECKOUT = Path(__file__).resolve().parents[1]
PAGES = [CHECKOUT / "README.rst", *sorted((CHECKOUT / "docs").glob("*.rst"))]

#: The receiver's address on the pages; the tests put their own backend in its place.
ADDRESS = "http://127.0.0.1:8765"

#: How many events and metrics reach the backend when the blocks of a page run in their order.
DELIVERED = {
    "README.rst": 2,
    "coming-from-guard-agent.rst": 1,
    "coming-from-posthog.rst": 1,
    "coming-from-sentry-sdk.rst": 1,
    "configuration.rst": 4,
    "delivery.rst": 3,
    "lifecycle.rst": 2,
    "quickstart.rst": 6,
    "rules.rst": 1,
    "troubleshooting.rst": 1,
}

#: Asks a page's Flask application for each of its addresses, as its users would.
VISITOR = """
for rule in app.url_map.iter_rules() if "app" in globals() else ():
    if not rule.arguments:
        app.test_client().get(rule.rule)
"""


def code_blocks(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^\.\. code-block:: python\n\n((?:(?: {4}.*)?\n)+)", text, re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


def is_test_module(blocks: list[str]) -> bool:
    return any("def test_" in block for block in blocks)


def pages(*, of_tests: bool) -> list[Path]:
    with_code = [page for page in PAGES if code_blocks(page)]
    return [page for page in with_code if is_test_module(code_blocks(page)) == of_tests]


def commands() -> list[str]:
    """The commands of the README's section "Try it"."""
    text = (CHECKOUT / "README.rst").read_text(encoding="utf-8")
    section = text.split("Try it\n---", 1)[1].split("\n---", 1)[0]
    return re.findall(r"^ {4}(.+)$", section, re.MULTILINE)


def run(folder: Path, name: str, source: str, *command: str) -> subprocess.CompletedProcess[str]:
    script = folder / name
    script.write_text(source, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-W", "error", *command, str(script)],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=60,
        check=False,
    )


def test_every_page_is_expected() -> None:
    """A page with code is run here, with the number of its deliveries."""
    assert {page.name for page in pages(of_tests=False)} == DELIVERED.keys()
    assert [page.name for page in pages(of_tests=True)] == ["testing.rst"]


@pytest.mark.parametrize("page", pages(of_tests=False), ids=lambda page: page.name)
def test_pages_deliver(
    page: Path, backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks of a page run as one program without a word of complaint; its events arrive."""
    monkeypatch.setenv("GUARDAGENT_API_KEY", "key-of-the-manual")
    monkeypatch.setenv("GUARDAGENT_ENDPOINT", backend.url)
    backend.default_rules = Status(200, {}, b'{"version": 7, "ip_blacklist": ["203.0.113.9"]}')
    source = "\n".join([*code_blocks(page), VISITOR]).replace(ADDRESS, backend.url)

    ended = run(tmp_path, "page.py", source)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(backend.received) == len(backend.keys) == DELIVERED[page.name]
    assert backend.unreadable == []


@pytest.mark.parametrize("page", pages(of_tests=True), ids=lambda page: page.name)
def test_pages_of_tests_pass(page: Path, tmp_path: Path) -> None:
    """The tests that a page shows pass in a project that has nothing but guardagent."""
    source = "\n\n".join(code_blocks(page))

    ended = run(tmp_path, "test_page.py", source, "-m", "pytest", "-q", "-p", "no:cacheprovider")

    assert ended.returncode == 0, ended.stdout
    assert re.search(rf"^{source.count('def test_')} passed", ended.stdout, re.MULTILINE)


def test_secrets_of_the_manual_stay(backend: Backend, tmp_path: Path) -> None:
    """What the page on delivery says is taken out does not reach the wire."""
    page = CHECKOUT / "docs" / "delivery.rst"
    source = "\n".join(code_blocks(page)).replace(ADDRESS, backend.url)

    ended = run(tmp_path, "page.py", source)

    wire = b"".join(request.body for request in backend.requests)
    assert ended.returncode == 0
    assert b"[REDACTED]" in wire
    assert not [secret for secret in (b"8f14e45f", b":secret@", b"=abc") if secret in wire]


def test_two_commands() -> None:
    """The README offers two commands to try it, each on one line: the demo, and the tests."""
    demo, tests = commands()

    assert demo.endswith("guardagent demo")
    assert tests.endswith("tox")


def test_continuous_integration_runs_the_second_command() -> None:
    """`.ci/run` can be executed, and its last line is the README's second command."""
    script = CHECKOUT / ".ci" / "run"

    assert os.access(script, os.X_OK)
    assert script.read_text(encoding="utf-8").splitlines()[-1] == commands()[1]
