"""The demonstration with the real Guard libraries."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec

import pytest

from guardagent.cli.guards import LIBRARIES

_PATIENCE = 60.0
_MISSING = [
    package
    for library in LIBRARIES.values()
    for package in library.packages
    if find_spec(package) is None
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {', '.join(_MISSING)}"),
]


def _play(*arguments: str, hidden: str = "") -> subprocess.CompletedProcess[str]:
    hiding = f"sys.modules[{hidden!r}] = None; " if hidden else ""
    code = f"import sys; {hiding}from guardagent.cli import main; main()"
    command = [sys.executable, "-W", "error", "-c", code, "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)


@pytest.mark.parametrize("framework", [*LIBRARIES])
def test_a_library_finds_the_attacks(framework: str) -> None:
    """What the library reports arrives exactly once, it obeys the rule, and no handler fails."""
    ended = _play("--guard", framework, "--seconds", "3")

    assert (ended.returncode, ended.stderr) == (0, "")
    answers = {int(status): int(n) for n, status in re.findall(r"(\d+) x (\d{3})", ended.stdout)}
    found = {name: int(n) for n, name in re.findall(r"\b(\d+) ([a-z]+_[a-z_]+)", ended.stdout)}
    assert f" {LIBRARIES[framework].requirements[0]} reported" in ended.stdout
    assert found["penetration_attempt"] == answers[400] > 0
    assert found["ip_blocked"] + found.get("user_agent_blocked", 0) == answers[403]
    assert found.get("rate_limited", 0) == answers.get(429, 0)
    assert min(found["dynamic_rule_applied"], found["ip_banned"]) > 0
    assert re.search(r"Rule pushed +│ in force \d+\.\d\d s later", ended.stdout)
    captured = _number("Captured", ended.stdout)
    assert captured == _number("Delivered", ended.stdout) == _number("Arrived", ended.stdout)
    assert captured > sum(found.values())  # there are metrics beside the events
    assert _number("Retried", ended.stdout) > 0
    assert _number("Dropped", ended.stdout) == 0
    assert f"Every one of {captured} captures arrived exactly once." in ended.stdout
    assert "Every visit from the address that was blocked was turned away." in ended.stdout


@pytest.mark.parametrize("framework", [*LIBRARIES])
@pytest.mark.parametrize("which", [0, -1])
def test_a_missing_library_is_named(framework: str, which: int) -> None:
    """Without one of its packages there is one line that says what to install."""
    library = LIBRARIES[framework]
    hidden = library.packages[which]

    ended = _play("--guard", framework, hidden=hidden)

    wanted = " ".join(library.requirements)
    if hidden == "flask":  # every demonstration needs it
        wanted = "'guardagent[demo]'"
    expected = f"guardagent: {hidden} is not installed; run: pip install {wanted}\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", expected)


def _number(row: str, text: str) -> int:
    match = re.search(rf"{row} +│ (\d+)", text)
    assert match is not None, row
    return int(match[1])
