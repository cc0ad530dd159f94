"""`guard_agent` is guardagent, when and only when somebody asked for it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import venv
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from guardagent import Agent, AgentConfig, ConfigError
from guardagent.contrib._termination import prepare
from guardagent.contrib.guard import guard_agent, install, uninstall
from guardagent.contrib.guard.__main__ import main
from guardagent.contrib.guard.factory import build_with
from guardagent.contrib.guard.replacement import replace
from guardagent.testing import RecordingAgent
from tests.support.backend import Backend
from tests.support.programs import Outcome, Program

REPLACING = Path(__file__).parent / "guard" / "replacing.py"
VARIABLE = "GUARDAGENT_REPLACE_GUARD_AGENT"
ALL = ["guard_agent", "guard_agent.models", "guard_agent.client", "guard_agent.exceptions"]

needs_guard_agent = pytest.mark.skipif(
    find_spec("guard_agent") is None, reason="guard-agent is not installed"
)


def replacing(backend: Backend, variable: str | None = None, **given: Any) -> Outcome:
    settings = {"endpoint": backend.url, **given}
    return Program(REPLACING, settings, environ={VARIABLE: variable}).wait()


def test_a_call_replaces_it(backend: Backend) -> None:
    """Where guard-agent is not installed, every name is there after one call."""
    ended = replacing(backend, install=True, hidden=True)

    (report,) = ended.reports
    assert (ended.status, ended.stderr) == (0, "")
    assert report["owners"] == dict.fromkeys(ALL, True)
    assert not report["loaded_early"]
    assert report["sent"]
    assert report["same"]
    assert report["spec"]
    assert report["has_handler"]
    assert report["restored"] is None
    assert len(backend.received) == 1  # by the exit


@needs_guard_agent
def test_it_wins_over_an_installed_one(backend: Backend) -> None:
    """Nothing of an installed guard-agent is met, until `uninstall`."""
    ended = replacing(backend, install=True)

    (report,) = ended.reports
    assert (ended.status, ended.stderr) == (0, "")
    assert report["owners"] == dict.fromkeys(ALL, True)
    assert not report["others"]
    assert report["restored"]


@needs_guard_agent
def test_it_comes_too_late(backend: Backend) -> None:
    """When guard-agent was imported before, the log says so; later imports meet guardagent."""
    ended = replacing(backend, install=True, before=True)

    (report,) = ended.reports
    assert report["owners"] == dict.fromkeys(ALL, True)
    assert "guard-agent was imported before install()" in ended.stderr


@pytest.mark.parametrize(("variable", "owner"), [("1", True), ("0", None), (None, None)])
def test_the_variable_decides(backend: Backend, variable: str | None, owner: bool | None) -> None:
    """A line that imports `auto` does nothing but what the variable says."""
    ended = replacing(backend, variable, hidden=True)

    (report,) = ended.reports
    assert report["owners"] == dict.fromkeys(ALL, owner)
    assert report.get("has_handler") in (False, None)  # that waits for a Guard library


@pytest.mark.slow
def test_an_environment_can_be_told_once(tmp_path: Path) -> None:
    """The written file makes every interpreter of an environment read the variable."""
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    (packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (packages / "here.pth").write_text("\n".join(sys.path[1:]), encoding="utf-8")
    code = "import guard_agent; print(guard_agent.__spec__.origin)"

    def run(value: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, "-c", code],
            env={VARIABLE: value, "PATH": ""},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    main(["enable"], folder=packages)
    enabled, quiet = run("1"), run("")
    main(["disable"], folder=packages)
    disabled = run("1")

    assert (enabled.stdout, enabled.stderr) == ("guardagent\n", "")
    assert "guardagent\n" not in (quiet.stdout, disabled.stdout)
    assert "guardagent" not in disabled.stderr + quiet.stderr


def test_the_file_survives_the_package(tmp_path: Path) -> None:
    """The line does nothing, and says nothing, where guardagent is no longer installed."""
    main(["enable"], folder=tmp_path)
    (line,) = (tmp_path / "guardagent_guard.pth").read_text(encoding="utf-8").splitlines()

    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", line],
        env={VARIABLE: "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (ended.returncode, ended.stderr) == (0, "")


def test_settings_are_checked_at_once() -> None:
    """A wrong setting of `install` is an error where it was written, and nothing is installed."""
    with pytest.raises(ConfigError, match="shutdown_timout"):
        install(shutdown_timout=1)
    with pytest.raises(ConfigError, match="flush_interval"):
        install(flush_interval=-1)

    assert not [finder for finder in sys.meta_path if "guardagent" in type(finder).__module__]


def test_agents_can_be_built_by_the_application() -> None:
    """`make_agent` gets the settings of each handler, and its agents are those at work."""
    config = AgentConfig(api_key="key-of-the-application", endpoint="http://127.0.0.1:9")
    given: list[AgentConfig] = []

    def make_agent(settings: AgentConfig) -> RecordingAgent:
        given.append(settings)
        return RecordingAgent()

    install(flush_on_sigterm=False, make_agent=make_agent)
    try:
        handler = guard_agent(config)
    finally:
        uninstall()
        build_with(Agent)

    handler.stop()
    handler.start()  # after a stop that is another agent
    handler.send_event({"event_type": "ip_banned"})

    assert given == [config, config]
    assert isinstance(handler.agent, RecordingAgent)
    assert len(handler.agent.events("ip_banned")) == 1
    handler.stop()


def test_other_threads_import_meanwhile() -> None:
    """Modules may come and go while it is installed, on several threads at once, and it is once."""
    errors: list[Exception] = []
    done = threading.Event()

    def come_and_go() -> None:
        names = [f"passing_{number}" for number in range(1_000)]
        while not done.is_set():
            for name in names:
                sys.modules[name] = ModuleType(name)
            for name in names:
                del sys.modules[name]

    def put() -> None:
        try:
            for _ in range(300):
                replace(flush_on_sigterm=False)
        except Exception as error:  # noqa: BLE001 - the test's to judge
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    passing = threading.Thread(target=come_and_go)
    putting = [threading.Thread(target=put) for _ in range(2)]
    try:
        passing.start()
        for thread in putting:
            thread.start()
        for thread in putting:
            thread.join()
        finders = [one for one in sys.meta_path if "guardagent" in type(one).__module__]
    finally:
        done.set()
        passing.join()
        sys.setswitchinterval(interval)
        uninstall()

    assert errors == []
    assert len(finders) == 1


def test_a_handler_of_the_application_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM is seen to only where nobody else does."""

    def own(_signum: int, _frame: object) -> None: ...

    former = signal.signal(signal.SIGTERM, own)
    try:
        install()
        prepare()
        present = signal.getsignal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, former)
        uninstall()

    assert present is own
