"""`guardagent rules`, against a real collector and against a file."""

from __future__ import annotations

import json
import os
import queue
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from guardagent import Agent, AgentConfig
from guardagent.cli.commands import guardagent
from guardagent.collector import Collector, CollectorServer, Store
from tests.conftest import quick_settings
from tests.support.answers import Status
from tests.support.backend import Backend

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEY = "right-key-0123456789"
_PATIENCE = 30.0


@pytest.fixture
def server() -> Iterator[CollectorServer]:
    """A collector that asks for a key and for signatures."""
    with Store() as store:
        app = Collector(store, api_keys=[_KEY], signing_secret="secret")
        with CollectorServer(app=app) as server:
            yield server


@pytest.fixture
def environ(server: CollectorServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have everything that is needed to reach it in the environment."""
    monkeypatch.setenv("GUARDAGENT_ENDPOINT", server.url)
    monkeypatch.setenv("GUARDAGENT_API_KEY", _KEY)
    monkeypatch.setenv("GUARDAGENT_PAYLOAD_SIGNING_SECRET", "secret")


def _rules(*arguments: str, text: str | None = None) -> Result:
    return CliRunner().invoke(guardagent, ["rules", *arguments], input=text)


def _set(document: Any, *arguments: str) -> Result:
    return _rules("set", "-", *arguments, text=json.dumps(document))


def _editor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> None:
    """Have an editor that runs `code` over `text`, the content of the file it is given."""
    script = tmp_path / "editor"
    script.write_text(
        f"#!{sys.executable}\nimport pathlib, sys\nfile = pathlib.Path(sys.argv[1])\n"
        f"text = file.read_text()\n{code}\nfile.write_text(text)\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(script))


# At a collector


@pytest.mark.usefixtures("environ")
def test_rules_are_set_and_read() -> None:
    """Each change has the next version; what changed is printed."""
    first = _set({"rule_id": "r", "ip_blacklist": ["203.0.113.9", "203.0.113.8"]})
    second = _set({"rule_id": "r", "ip_blacklist": ["203.0.113.9"], "emergency_mode": True})
    same = _set({"rule_id": "r", "ip_blacklist": ["203.0.113.9"], "emergency_mode": True})

    assert first.output == (
        "r version 1 is in force:\n  ip_blacklist: +203.0.113.9, +203.0.113.8\n"
    )
    assert second.output == (
        "r version 2 is in force:\n  ip_blacklist: -203.0.113.8\n  emergency_mode: false -> true\n"
    )
    assert same.output == "Nothing changed: r version 2 stays.\n"
    document = json.loads(_rules("get").stdout)
    assert (document["rule_id"], document["version"]) == ("r", 2)
    assert document["ip_blacklist"] == ["203.0.113.9"]


@pytest.mark.usefixtures("environ")
def test_an_agent_gets_what_was_set(server: CollectorServer) -> None:
    """At its next poll, without a restart."""
    came: queue.Queue[Any] = queue.Queue()
    settings = {**quick_settings(server.url), "api_key": _KEY, "dynamic_rule_interval": 0.05}
    _set({"ip_blacklist": ["203.0.113.9"]})
    with Agent(AgentConfig(**settings)) as agent:
        agent.on_rules(came.put)
        first = came.get(timeout=_PATIENCE)
        _set({"ip_blacklist": ["203.0.113.10"]})
        second = came.get(timeout=_PATIENCE)

    assert (first.version, second.version) == (1, 2)
    assert second.ip_blacklist == ["203.0.113.10"]


@pytest.mark.usefixtures("environ")
def test_a_bad_document_changes_nothing() -> None:
    """Each bad field is told on a line, before anything is sent."""
    _set({"rule_id": "r"})

    result = _set({"version": "x", "ip_blacklist": ["nowhere"], "ttl": []})

    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[0] == "Error: <stdin> is not a rules document; nothing was changed:"
    assert sorted(line.partition(":")[0] for line in lines[1:]) == [
        "ip_blacklist",
        "ttl",
        "version",
    ]
    assert json.loads(_rules("get").stdout)["rule_id"] == "r"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "<stdin> is not a rules document"),
        ("{", "<stdin>: not JSON: "),
        ('{"ttl": NaN}', "<stdin>: not JSON: NaN"),
    ],
)
def test_what_is_no_document_is_told(text: str, reason: str) -> None:
    """With its place in the text where there is one."""
    result = _rules("set", "-", text=text)

    assert result.exit_code == 1
    assert reason in result.output


@pytest.mark.usefixtures("environ")
def test_what_agents_ignore_is_told() -> None:
    """A slip of the hand in a name would otherwise block nobody."""
    result = _set({"ip_blacklits": ["203.0.113.9"]})

    assert result.exit_code == 0
    assert "ip_blacklits (did you mean ip_blacklist?)" in result.output


def test_a_wrong_key_is_told(server: CollectorServer) -> None:
    """And which option has it."""
    result = _rules("get", "--endpoint", server.url)

    assert result.exit_code == 1
    assert "the key is refused (X-API-Key: not a known key). See --api-key" in result.output


def test_a_missing_signature_is_told(server: CollectorServer) -> None:
    """Reading needs none, changing does."""
    where = ("--endpoint", server.url, "--api-key", _KEY)

    assert _rules("get", *where).exit_code == 0
    assert "X-Payload-Signature: missing" in _set({}, *where).output
    assert _set({}, *where, "--secret", "secret").exit_code == 0


def test_nobody_there_is_told() -> None:
    """In words, with what to look at."""
    with Backend() as backend:
        url = backend.url
    result = _rules("get", "--endpoint", url)

    assert result.exit_code == 1
    assert "connection refused: nothing listens at 127.0.0.1" in result.output


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Status(404), "no rules can be read at "),
        (Status(503, body=b"<html>"), "the collector says: HTTP 503"),
        (Status(503, body=b'{"errors": ["busy"]}'), "the collector says: busy"),
        (Status(200, body=b"["), "the answer is not JSON"),
        (Status(200, body=b"[]"), "the answer is not a JSON object"),
    ],
)
def test_odd_answers_are_told(backend: Backend, answer: Status, reason: str) -> None:
    """Whoever it is that answers."""
    backend.default_rules = answer

    result = _rules("get", "--endpoint", backend.url)

    assert result.exit_code == 1
    assert reason in result.output


def test_a_backend_whose_rules_cannot_be_changed_is_told(backend: Backend) -> None:
    """The protocol has no way to change rules; only our collector does."""
    result = _set({}, "--endpoint", backend.url)

    assert result.exit_code == 1
    assert f"no rules can be changed at {backend.url} (HTTP 404)" in result.output


class _Odd(CollectorServer):
    """Somebody else's server, which says 200 to everything."""

    def __init__(self, body: bytes) -> None:
        super().__init__(app=self._answer)
        self._body = body

    def _answer(self, _environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", str(len(self._body)))])
        return [self._body]


@pytest.mark.parametrize("body", [b"{}", b'{"changed": 1, "rule_id": 1, "version": "x"}'])
def test_an_answer_that_is_not_a_collectors_is_told(body: bytes) -> None:
    """Nobody knows then what became of the rules."""
    with _Odd(body) as server:
        result = _set({}, "--endpoint", server.url)

    assert result.exit_code == 1
    assert "the answer is not a guardagent collector's" in result.output


def test_rules_of_another_make_can_be_replaced() -> None:
    """What was there before need not be what this version reads."""
    answer = b'{"ttl": "soon", "changed": true, "rule_id": "r", "version": 2, "ignored": []}'
    with _Odd(answer) as server:
        result = _set({"ttl": 5}, "--endpoint", server.url)

    assert result.output == "r version 2 is in force:\n  ttl: 300 -> 5\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--endpoint", "nowhere"], "endpoint: given 'nowhere'"),
        (["--file", "r.json", "--api-key", "k"], "--file needs no collector"),
    ],
)
def test_wrong_options_are_told(arguments: list[str], reason: str) -> None:
    """As a mistake in the call."""
    result = _rules("get", *arguments)

    assert result.exit_code == 2
    assert reason in result.output


# In a file


def test_a_file_is_written_and_read(tmp_path: Path) -> None:
    """As a collector reads it: whole, with the next version, its permissions kept."""
    path = tmp_path / "rules.json"
    where = ("--file", str(path))
    assert _set({"ip_blacklist": ["203.0.113.9"]}, *where).exit_code == 0
    path.chmod(0o640)
    assert "version 2" in _set({"ip_blacklist": []}, *where).output

    assert json.loads(_rules("get", *where).stdout) == json.loads(path.read_text())
    assert json.loads(path.read_text())["version"] == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [file.name for file in tmp_path.iterdir() if "rules" in file.name] == ["rules.json"]


def test_a_broken_file_is_told_and_can_be_mended(tmp_path: Path) -> None:
    """Reading fails with the reason; setting replaces it."""
    path = tmp_path / "rules.json"
    path.write_text('{"version": "x"}')
    where = ("--file", str(path))

    assert "version: given 'x' (str)" in _rules("get", *where).output
    assert _set({"ttl": 5}, *where).exit_code == 0
    assert json.loads(path.read_text())["ttl"] == 5


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """Without a traceback."""
    result = _set({}, "--file", str(tmp_path / "no" / "rules.json"))

    assert result.exit_code == 1
    assert "cannot be written: No such file or directory" in result.output


# In an editor


@pytest.mark.usefixtures("environ")
def test_an_edit_is_put_in_force(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The editor begins with what is there."""
    _set({"rule_id": "r", "ip_blacklist": ["203.0.113.9"]})
    _editor(monkeypatch, tmp_path, "text = text.replace('113.9', '113.10')")

    result = _rules("edit")

    assert (
        result.output == "r version 2 is in force:\n  ip_blacklist: +203.0.113.10, -203.0.113.9\n"
    )


@pytest.mark.usefixtures("environ")
def test_an_edit_without_a_change_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing saved, nothing changed."""
    _set({"rule_id": "r"})
    monkeypatch.setenv("VISUAL", "true")

    assert _rules("edit").output == "Nothing changed.\n"
    assert json.loads(_rules("get").stdout)["version"] == 1


@pytest.mark.usefixtures("environ")
def test_a_bad_edit_is_not_lost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The reasons are shown; who does not want to go on finds his text in a file."""
    _set({"rule_id": "r", "ttl": 5})
    _editor(monkeypatch, tmp_path, "text = text.replace('\"r\"', '7')")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    result = _rules("edit", text="n\n")

    assert result.exit_code == 1
    assert "rule_id: given " in result.output
    assert "Error: Nothing was changed." in result.output
    draft = result.output.split("Your text is in ")[1].split("\n")[0]
    assert '"rule_id": 7' in Path(draft).read_text(encoding="utf-8")
    assert json.loads(_rules("get").stdout)["version"] == 1


@pytest.mark.usefixtures("environ")
def test_a_bad_edit_is_shown_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Until it is right."""
    _set({"rule_id": "r", "ttl": 5})
    _editor(
        monkeypatch,
        tmp_path,
        "text = text.replace('\"bad\"', '7') if 'bad' in text else"
        ' text.replace(\'"ttl": 5\', \'"ttl": "bad"\')',
    )

    result = _rules("edit", text="y\n")

    assert "ttl: given 'bad' (str)" in result.output
    assert result.output.endswith("r version 2 is in force:\n  ttl: 5 -> 7\n")


@pytest.mark.usefixtures("environ")
def test_who_was_faster_is_not_overwritten(
    server: CollectorServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The rules that changed while the editor was open stay, and the text is kept."""
    _set({"rule_id": "r", "ttl": 5})
    other = [sys.executable, "-m", "guardagent", "rules", "set", "-"]
    _editor(
        monkeypatch,
        tmp_path,
        f'import subprocess; subprocess.run({other!r}, input=\'{{"rule_id": "r", "ttl": 6}}\','
        " text=True, check=True, capture_output=True)\n"
        "text = text.replace('\"ttl\": 5', '\"ttl\": 7')",
    )
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    result = _rules("edit")

    assert result.exit_code == 1
    assert "If-Match: the rules were changed meanwhile" in result.output
    assert "Your text is in " in result.output
    assert json.loads(_rules("get").stdout)["ttl"] == 6


# Followed


def test_changes_are_followed(tmp_path: Path) -> None:
    """A line for each, until Ctrl-C, and then status 0."""
    path = tmp_path / "rules.json"
    _set({"rule_id": "r", "ip_blacklist": ["203.0.113.9"]}, "--file", str(path))
    command = [sys.executable, "-W", "error", "-m", "guardagent", "rules", "watch"]
    process = subprocess.Popen(
        [*command, "--file", str(path), "--interval", "0.05"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    killer = threading.Timer(_PATIENCE, process.kill)
    killer.start()
    try:
        first = process.stdout.readline()
        _set({"rule_id": "r", "ip_blacklist": ["203.0.113.10"]}, "--file", str(path))
        second = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=_PATIENCE)
    finally:
        killer.cancel()
        killer.join()

    assert first.split(" ", 1)[1] == "r version 1: ip_blacklist: +203.0.113.9\n"
    assert second.split(" ", 1)[1] == ("r version 2: ip_blacklist: +203.0.113.10, -203.0.113.9\n")
    assert (process.returncode, rest, errors) == (0, "", "")
