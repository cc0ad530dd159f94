"""The `guardagent` command as such: version, help, and what is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from guardagent import __version__
from guardagent.cli.commands import guardagent

_PATIENCE = 30.0


def _run(*arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    program = ["-c", code] if code else ["-m", "guardagent"]
    return subprocess.run(
        [sys.executable, "-W", "error", *program, *arguments],
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )


def test_the_version_is_told() -> None:
    """`--version` prints the package's version."""
    result = _run("--version")

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"guardagent, version {__version__}\n"


@pytest.mark.parametrize("command", ["", "collect", "demo", "send"])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_command_has_help(command: str, option: str) -> None:
    """The help says how to call it and what it is for."""
    result = CliRunner().invoke(guardagent, [*filter(None, [command]), option])

    assert result.exit_code == 0
    assert result.output.startswith("Usage: guardagent")
    assert "Options:" in result.output


@pytest.mark.parametrize(
    ("package", "command", "extra"),
    [
        ("click", "--version", "cli"),
        ("rich", "collect --port 0", "cli"),
        ("rich", "demo", "demo"),
        ("click", "demo --seconds 2", "demo"),
        ("flask", "demo", "demo"),
        ("werkzeug", "demo", "demo"),
    ],
)
def test_a_missing_extra_is_named(package: str, command: str, extra: str) -> None:
    """Without a package of an extra there is one line that says what to install."""
    code = f"import sys; sys.modules[{package!r}] = None; from guardagent.cli import main; main()"

    result = _run(*command.split(), code=code)

    last = result.stderr.splitlines()[-1]
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert last == (
        f"guardagent: {package} is not installed; run: pip install 'guardagent[{extra}]'"
    )


def test_another_missing_module_is_a_fault_of_ours() -> None:
    """An import that fails for another reason is not blamed on an extra."""
    code = (
        "import sys; sys.modules['guardagent.cli.commands'] = None\n"
        "from guardagent.cli import main; main()"
    )

    result = _run(code=code)

    assert "ModuleNotFoundError" in result.stderr
