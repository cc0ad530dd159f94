"""`guardagent collect`, as a process."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from guardagent.cli.commands import guardagent
from guardagent.collector import Store
from guardagent.transport.sealing import Sealer
from tests.collector.parts import batch, event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.backend import Backend

_PATIENCE = 30.0


class _Collect:
    """`guardagent collect` as a process."""

    def __init__(self, *arguments: str, **environ: str) -> None:
        command = [sys.executable, "-W", "error", "-m", "guardagent", "collect", "--port", "0"]
        self.process = subprocess.Popen(
            [*command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environ},
        )
        assert self.process.stderr is not None
        first = self.process.stderr.readline().strip()

        assert first.startswith("Collecting at http://127.0.0.1:"), first
        self.port = int(first.rpartition(":")[2])
        self.lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def post(self, path: str, body: Any, **headers: str) -> int:
        """Send a JSON body; returns the status."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE)
        with contextlib.closing(connection):
            connection.request("POST", path, json.dumps(body), headers)
            response = connection.getresponse()
            response.read()
            return response.status

    def line(self) -> str:
        """Return the next line of the output."""
        return self.lines.get(timeout=_PATIENCE)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Send a signal; return the status, the lines not read yet, and the errors."""
        self.process.send_signal(number)
        status = self.process.wait(_PATIENCE)
        self._reader.join()
        assert self.process.stderr is not None
        return status, "".join(self.lines.queue), self.process.stderr.read()

    def close(self) -> None:
        """Let nothing of it stay behind."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)


@pytest.fixture
def collect() -> Iterator[Callable[..., _Collect]]:
    """Start `guardagent collect` at a free port; ended at the end."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str, **environ: str) -> _Collect:
            return stack.enter_context(contextlib.closing(_Collect(*arguments, **environ)))

        yield start


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_arrivals_are_json_lines(collect: Callable[..., _Collect], number: int) -> None:
    """With `--json` each arrival is a line at once; a signal ends it all with status 0."""
    collecting = collect("--json")
    sent = event()
    collecting.post("/api/v1/events", batch(events=[sent]), **{"X-Agent-Install-Id": "host-1"})
    line = json.loads(collecting.line())
    collecting.post("/api/v1/events", {"not": "a batch"})
    refused = json.loads(collecting.line())

    assert (line["kind"], line["type"], line["agent"]) == ("event", "ip_banned", "host-1")
    assert line["body"] == sent
    assert (refused["kind"], refused["type"]) == ("refusal", "422")
    assert collecting.end(number) == (0, "", "")


def test_without_a_terminal_arrivals_are_plain_lines(collect: Callable[..., _Collect]) -> None:
    """Output into a file or a pipe is a line for each arrival."""
    collecting = collect()
    collecting.post("/api/v1/events", batch(events=[event(event_type="login_failed")]))

    assert " event login_failed shop" in collecting.line()
    assert collecting.end()[0] == 0


def test_on_a_terminal_there_is_a_table(collect: Callable[..., _Collect]) -> None:
    """The last table shows what came up to the end."""
    collecting = collect(FORCE_COLOR="1", COLUMNS="100")
    collecting.post("/api/v1/events", batch(events=[event(event_type="login_failed")]))

    status, output, errors = collecting.end()

    assert (status, errors) == (0, "")
    assert f"guardagent collector at http://127.0.0.1:{collecting.port}" in output
    assert "login_failed" in output


def test_keys_secrets_and_rules_are_used(collect: Callable[..., _Collect], tmp_path: Path) -> None:
    """What is asked for on the command line is asked of the agents."""
    rules = tmp_path / "rules.json"
    rules.write_text('{"version": 3}')
    collecting = collect("--api-key", "one", "--api-key", "two", "--rules", str(rules))

    statuses = [
        collecting.post("/api/v1/events", batch(), **{"X-API-Key": key})
        for key in ("one", "two", "three")
    ]
    connection = http.client.HTTPConnection("127.0.0.1", collecting.port, timeout=_PATIENCE)
    with contextlib.closing(connection):
        connection.request("GET", "/api/v1/rules", headers={"X-API-Key": "two"})
        document = connection.getresponse().read()

    assert statuses == [200, 200, 401]
    assert document == b'{"version": 3}'


def test_a_secret_makes_signatures_needed(collect: Callable[..., _Collect]) -> None:
    """With `--secret` an unsigned body is refused."""
    assert collect("--secret", "s").post("/api/v1/events", batch()) == 401


@pytest.mark.parametrize("form", ["option", "environment"])
def test_sealed_batches_are_opened(collect: Callable[..., _Collect], form: str) -> None:
    """With `--encryption-key`, or the variable that agents have it in."""
    pytest.importorskip("cryptography")
    key = base64.urlsafe_b64encode(bytes(range(32))).decode()
    if form == "option":
        collecting = collect("--encryption-key", key)
    else:
        collecting = collect(GUARDAGENT_PROJECT_ENCRYPTION_KEY=key)
    payload = json.dumps({"events": [event(event_type="login_failed")], "metrics": []})
    envelope = {
        "encrypted_payload": Sealer(key).seal(payload.encode()),
        "batch_id": "b-1",
        "agent_version": "0.1.0",
    }

    assert collecting.post("/api/v1/events/encrypted", envelope) == 200
    assert " event login_failed" in collecting.line()


def test_a_file_keeps_what_came(collect: Callable[..., _Collect], tmp_path: Path) -> None:
    """With `--db` everything is there next time, and only what is new is shown."""
    path = tmp_path / "arrivals.db"
    for number in range(2):
        collecting = collect("--json", "--db", str(path), "--keep", "100")
        collecting.post("/api/v1/events", batch(events=[event(event_type=f"event_{number}")]))
        shown = json.loads(collecting.line())
        collecting.end()

        assert shown["type"] == f"event_{number}"
    with Store(path) as store:
        assert [arrival.type for arrival in store.arrivals()] == ["event_0", "event_1"]


def test_the_oldest_are_let_go(collect: Callable[..., _Collect], tmp_path: Path) -> None:
    """With `--keep` only the newest stay."""
    path = tmp_path / "arrivals.db"
    collecting = collect("--db", str(path), "--keep", "2")
    collecting.post("/api/v1/events", batch(events=[event() for _ in range(5)]))
    collecting.end()

    with Store(path) as store:
        assert store.count("event") == 2


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--rules", "none.json"], "none.json: rules document: cannot be read: No such file"),
        (["--rules", "list.json"], "list.json: rules document: not a JSON object"),
        (["--db", "no/folder/x.db"], "cannot be used: unable to open database file"),
        (["--rules", "bad.json"], "bad.json: rules document: ttl: given 'soon' (str)"),
        (["--encryption-key", "short"], "--encryption-key: given a value of type str, allowed: 32"),
        (["--host", "192.0.2.1"], "cannot listen at 192.0.2.1 port 0: "),
        (["--port", "70000"], "is not in the range"),
    ],
)
def test_what_cannot_start_says_why(
    arguments: list[str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong file or address is one line and a status that is not 0."""
    monkeypatch.chdir(tmp_path)
    Path("list.json").write_text("[]")
    Path("bad.json").write_text('{"ttl": "soon"}')

    result = CliRunner().invoke(guardagent, ["collect", "--port", "0", *arguments])

    assert result.exit_code in (1, 2)
    assert reason in result.output


def test_a_taken_port_is_told(backend: Backend) -> None:
    """A port that somebody else has is told with its number."""
    result = CliRunner().invoke(guardagent, ["collect", "--port", str(backend.port)])

    assert result.exit_code == 1
    assert (
        f"cannot listen at 127.0.0.1 port {backend.port}: Address already in use" in result.output
    )


@pytest.mark.parametrize(
    ("host", "is_warned"), [("0.0.0.0", True), ("127.0.0.1", False), ("localhost", False)]
)
def test_an_open_door_is_told(host: str, is_warned: bool) -> None:
    """Who listens for everybody without a key is told so, once."""
    command = [sys.executable, "-W", "error", "-m", "guardagent", "collect", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--host", host], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert process.stderr is not None
    process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=_PATIENCE)

    assert process.returncode == 0
    assert ("Anybody who reaches this address is let in" in errors) is is_warned


def test_a_reader_that_goes_away_ends_it() -> None:
    """A closed pipe is no traceback."""
    command = [sys.executable, "-W", "error", "-m", "guardagent", "collect", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--json"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert process.stdout is not None
    port = int(process.stderr.readline().strip().rpartition(":")[2])
    process.stdout.close()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
    with contextlib.closing(connection):
        connection.request("POST", "/api/v1/events", json.dumps(batch(events=[event()])))
        connection.getresponse().read()
    errors = process.stderr.read()
    process.stderr.close()

    assert process.wait(_PATIENCE) == 1
    assert errors == ""
