"""`guardagent spool`: what operators see and do."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from guardagent import Agent, AgentConfig
from guardagent.cli.commands import guardagent
from guardagent.cli.exports import dead_line, id_text, waiting_line
from guardagent.encoding import Record
from guardagent.spool.frame import pack
from guardagent.spool.store import DeadLetter
from tests.cli.shared import KEY, SharedSpool
from tests.support.answers import Status

if TYPE_CHECKING:
    from tests.support.backend import Backend

Fill = Callable[..., list[str]]
Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    """Run `guardagent spool` in this process."""

    def invoke(spool: SharedSpool, *arguments: str, answer: str = "") -> Result:
        where = {"GUARDAGENT_SPOOL": spool.url, "GUARDAGENT_PROJECT_ID": spool.project}
        return CliRunner().invoke(guardagent, ["spool", *arguments], env=where, input=answer)

    return invoke


def told(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def bury(spool: SharedSpool, count: int, reason: str = "rejected") -> None:
    """Put the oldest events among the dead letters."""
    with spool.store() as store:
        claim, _ = store.claim(count, 1_000_000, "1-00000000", 1.0)
        assert claim is not None
        store.bury(claim.kind, [id_ for id_, _ in claim.entries], reason)


@pytest.fixture
def littered(shared_spool: SharedSpool, fill: Fill) -> Iterator[SharedSpool]:
    """A spool with two dead letters and three records."""
    fill(shared_spool, 5)
    bury(shared_spool, 1, "rejected")
    bury(shared_spool, 1, "too_large")
    return shared_spool


def test_status_counts(littered: SharedSpool, run: Run) -> None:
    """Records, bytes, age and dead letters, as a table or as JSON."""
    (status,) = told(run(littered, "status", "--json"))
    table = run(littered, "status").output

    assert status["records"] == 3
    assert status["bytes"] > 3 * 100
    assert 0 <= status["oldest_age"] < 3_600
    assert status["dead_letters"] == 2
    assert status["dead_letters_by_reason"] == {"rejected": 1, "too_large": 1}
    assert status["dead_letter_bytes"] > 2 * 100
    assert status["of_a_later_release"] == 0
    assert status["generation"] in table
    assert "Records       3\n" in table
    size = status["dead_letter_bytes"]
    assert f"Dead letters  2 ({size} bytes)\n  rejected: 1\n  too_large: 1\n" in table


def test_status_tells_of_a_later_release(shared_spool: SharedSpool, run: Run, fill: Fill) -> None:
    """What this one cannot read, and leaves to those that can, is counted by itself."""
    fill(shared_spool, 2)
    with shared_spool.store() as store:
        ((kind, _, frame),) = store.waiting(1)
        store.append({kind: [b"\x09" + frame[1:]]})
        while store.claim(100, 1_000_000, "1-00000000", 1.0)[0] is not None:
            pass  # whoever delivers comes across it

    (status,) = told(run(shared_spool, "status", "--json"))

    assert (status["records"], status["of_a_later_release"]) == (3, 1)
    assert "Records       3\n  1 of a later release" in run(shared_spool, "status").output


def test_status_of_an_empty_spool(shared_spool: SharedSpool, run: Run, fill: Fill) -> None:
    """Nothing waits, so nothing has an age."""
    fill(shared_spool, 1)
    told(run(shared_spool, "export"))
    assert run(shared_spool, "purge", "--yes").output == "Forgot 1.\n"

    assert told(run(shared_spool, "status", "--json"))[0]["oldest_age"] is None
    assert "Oldest        -\n" in run(shared_spool, "status").output


def test_all_of_it_while_an_agent_uses_the_spool(
    shared_spool: SharedSpool, run: Run, fill: Fill, backend: Backend
) -> None:
    """An agent that waits for its backend is not disturbed, and delivers each event once."""
    backend.default = Status(503)
    keys = fill(shared_spool, 3)
    settings = {"flush_interval": 0.05, "retry_attempts": 0, "backoff_factor": 0.01}
    config = AgentConfig(
        api_key=KEY,
        endpoint=backend.url,
        project_id=shared_spool.project,
        spool=shared_spool.url,
        **settings,
    )
    with Agent(config) as agent:
        assert backend.wait_for_requests(1)
        (status,) = told(run(shared_spool, "status", "--json"))
        exported = told(run(shared_spool, "export"))
        backend.default = Status(200)
        came = backend.wait_for(3)

    assert came
    assert status["records"] == 3
    assert [line["record"]["idempotency_key"] for line in exported] == keys
    assert backend.received == keys
    assert agent.stats().delivered == 3


def test_dead_letters_are_listed(littered: SharedSpool, run: Run) -> None:
    """With reason, time and id; with what they say only where that is asked for."""
    lines = run(littered, "dead").output.splitlines()
    letters = told(run(littered, "dead", "--json"))
    (letter,) = told(run(littered, "dead", "--json", "--bodies", "--reason", "too_large"))
    (line,) = run(littered, "dead", "--bodies", "--reason", "too_large").output.splitlines()

    assert [line.split()[0] for line in lines] == [letter["id"] for letter in letters]
    assert [line.split()[2:] for line in lines] == [
        ["events", "rejected"],
        ["events", "too_large"],
    ]
    assert "login_failed" not in "".join(lines)
    assert not [letter for letter in letters if "record" in letter]
    assert letter["record"]["event_type"] == "login_failed"
    assert '"event_type":"login_failed"' in line


@pytest.mark.parametrize("how", ["ids", "all", "reason"])
def test_dead_letters_are_requeued(littered: SharedSpool, run: Run, how: str) -> None:
    """By id, by reason or all of them; they wait behind the others then."""
    ids = [letter["id"] for letter in told(run(littered, "dead", "--json"))]
    options = {"ids": [ids[0]], "all": ["--all"], "reason": ["--reason", "too_large"]}[how]

    result = run(littered, "requeue", *options)

    n = 2 if how == "all" else 1
    assert result.output == f"Requeued {n}.\n"
    (status,) = told(run(littered, "status", "--json"))
    assert (status["records"], status["dead_letters"]) == (3 + n, 2 - n)
    if how == "reason":
        assert status["dead_letters_by_reason"] == {"rejected": 1}


def test_an_unknown_id_requeues_nothing(littered: SharedSpool, run: Run) -> None:
    """One that is mistyped stops the others: it is named, and nothing has changed."""
    first = told(run(littered, "dead", "--json"))[0]["id"]

    result = run(littered, "requeue", first, "no\x1bsuch")

    assert result.exit_code == 1
    assert result.output.endswith("no dead letter has the id no\N{REPLACEMENT CHARACTER}such\n")
    assert told(run(littered, "status", "--json"))[0]["dead_letters"] == 2


@pytest.mark.parametrize("options", [[], ["1", "--all"], ["--all", "--reason", "rejected"]])
def test_requeue_wants_to_know_what(littered: SharedSpool, run: Run, options: list[str]) -> None:
    """One way to say it, and only one."""
    result = run(littered, "requeue", *options)

    assert result.exit_code == 2
    assert "or --all, or --reason" in result.output


def test_export_changes_nothing(littered: SharedSpool, run: Run, tmp_path: Path) -> None:
    """Waiting records and dead letters are lines of JSON, on the output or in a file."""
    lines = told(run(littered, "export"))
    waiting = told(run(littered, "export", "--waiting"))
    dead = told(run(littered, "export", "--dead"))
    result = run(littered, "export", "--output", str(tmp_path / "all.jsonl"))

    assert [line["state"] for line in lines] == ["waiting"] * 3 + ["dead"] * 2
    assert waiting + dead == lines
    assert dead[0]["reason"] == "rejected"
    assert {line["record"]["event_type"] for line in lines} == {"login_failed"}
    assert {line["kind"] for line in lines} == {"events"}
    file = tmp_path / "all.jsonl"
    assert [json.loads(line) for line in file.read_text().splitlines()] == lines
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (result.stdout, result.stderr) == ("", "5 records.\n")
    assert told(run(littered, "status", "--json"))[0]["records"] == 3


def test_export_into_a_file_that_is_there(
    sqlite_spool: SharedSpool, run: Run, fill: Fill, tmp_path: Path
) -> None:
    """It holds nothing else afterwards, and others can read it no longer."""
    fill(sqlite_spool, 1)
    file = tmp_path / "all.jsonl"
    file.write_text("x" * 10_000)
    file.chmod(0o644)

    result = run(sqlite_spool, "export", "--output", str(file))

    assert result.exit_code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text())["kind"] == "events"


def test_export_into_what_is_no_file(sqlite_spool: SharedSpool, run: Run, fill: Fill) -> None:
    """A device is written to and left as it is."""
    fill(sqlite_spool, 1)
    before = Path("/dev/null").stat().st_mode

    result = run(sqlite_spool, "export", "--output", "/dev/null")

    assert (result.exit_code, result.stderr) == (0, "1 records.\n")
    assert Path("/dev/null").stat().st_mode == before


def test_export_reads_in_pages(shared_spool: SharedSpool, run: Run, fill: Fill) -> None:
    """More than a page comes whole, in order, each once."""
    keys = fill(shared_spool, 1_201)
    bury(shared_spool, 600)

    lines = told(run(shared_spool, "export"))

    waiting = [line for line in lines if line["state"] == "waiting"]
    dead = [line for line in lines if line["state"] == "dead"]
    assert [line["record"]["idempotency_key"] for line in dead + waiting] == keys


@pytest.mark.parametrize("command", ["export", "dead"])
def test_control_characters_stay_harmless(
    sqlite_spool: SharedSpool, run: Run, fill: Fill, command: str
) -> None:
    """What an attacker had logged cannot play on the operator's terminal."""
    fill(sqlite_spool, 1, reason="\x1b]0;owned\x07\x7f\x9b2J")
    bury(sqlite_spool, 1)
    options = ["--bodies"] if command == "dead" else []

    result = run(sqlite_spool, command, *options)

    assert "owned" in result.output
    assert result.stdout.rstrip("\n").isprintable()


def test_purge_asks_first(littered: SharedSpool, run: Run) -> None:
    """It says how many; no answer and a No leave everything as it was."""
    refused = run(littered, "purge", answer="n\n")
    silent = run(littered, "purge")
    kept = told(run(littered, "status", "--json"))[0]
    agreed = run(littered, "purge", answer="y\n")
    left = told(run(littered, "status", "--json"))[0]

    assert (refused.exit_code, silent.exit_code, agreed.exit_code) == (1, 1, 0)
    assert f"Forget 3 records ({kept['bytes']} bytes) for ever?" in refused.output
    assert kept["records"] == 3
    assert agreed.stdout == "Forgot 3.\n"
    assert (left["records"], left["dead_letters"]) == (0, 2)


def test_dead_letters_are_purged_alone(littered: SharedSpool, run: Run) -> None:
    """What waits stays."""
    result = run(littered, "purge", "--dead", "--yes")

    assert (result.exit_code, result.output) == (0, "Forgot 2.\n")
    assert run(littered, "purge", "--dead").output == "There is nothing to forget.\n"
    assert told(run(littered, "status", "--json"))[0]["records"] == 3


@pytest.mark.parametrize("command", ["status", "dead", "export", "purge", "requeue"])
def test_a_missing_file_is_not_made(run: Run, tmp_path: Path, command: str) -> None:
    """A mistyped path is an error, and no file afterwards."""
    options = {"purge": ["--yes"], "requeue": ["--all"]}.get(command, [])

    result = run(SharedSpool(f"sqlite:///{tmp_path}/nothing.db", "shop"), command, *options)

    assert (result.exit_code, result.output) == (
        1,
        f"Error: There is no spool at {tmp_path}/nothing.db.\n",
    )
    assert not (tmp_path / "nothing.db").exists()


@pytest.mark.parametrize("content", [b"", b"127.0.0.1 localhost\n" * 100], ids=["empty", "text"])
def test_another_file_is_left_alone(run: Run, tmp_path: Path, content: bytes) -> None:
    """What is no spool is neither made one nor moved away."""
    path = tmp_path / "hosts"
    path.write_bytes(content)

    result = run(SharedSpool(f"sqlite:///{path}", "shop"), "status")

    assert result.exit_code == 1
    assert str(path) in result.output
    assert "Traceback" not in result.output
    assert path.read_bytes() == content
    assert {one.name for one in tmp_path.iterdir()} == {"home", "hosts"}


def test_a_redis_that_is_away_is_told(run: Run) -> None:
    """One line with the address, without the password."""
    result = run(SharedSpool("redis://:hush-hush@127.0.0.1:9/0", "shop"), "status")

    assert result.exit_code == 1
    assert result.output.startswith("Error: redis://127.0.0.1:9/0 cannot be used: Redis: ")
    assert "hush-hush" not in result.output


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "Missing option '--spool'"),
        ("memory://", "can be reached by its own process only"),
        ("http://x", "allowed: memory://"),
        ("sqlite:////nowhere/at/all.db", "a path in a folder that exists"),
    ],
)
def test_wrong_addresses_are_usage_errors(run: Run, url: str, reason: str) -> None:
    """Status 2, and what would be right."""
    result = run(SharedSpool(url, "shop"), "status")

    assert result.exit_code == 2
    assert reason in result.output


def test_a_file_that_cannot_be_written_is_told(
    sqlite_spool: SharedSpool, run: Run, fill: Fill, tmp_path: Path
) -> None:
    """A reason instead of a traceback."""
    fill(sqlite_spool, 1)

    result = run(sqlite_spool, "export", "--output", str(tmp_path / "no" / "folder"))

    assert result.exit_code == 1
    assert result.output.endswith("cannot be written: No such file or directory\n")


@pytest.mark.parametrize(
    "body",
    [b"NaN", b"[1e400]", b"{", b"\xff", b"[" * 100_000, b"9" * 5_000],
    ids=["nan", "infinity", "torn", "bytes", "deep", "digits"],
)
def test_what_is_no_json_is_exported_whole(body: bytes) -> None:
    """Whatever somebody wrote into a spool, the lines stay JSON and nothing is left out."""
    frame = pack(Record("events", body, 12.0))

    line = json.loads(waiting_line("events", 7, frame))

    assert base64.b64decode(line["frame"]) == frame
    assert (line["id"], line["made_at"]) == ("7", 12.0)


def test_a_damaged_frame_is_exported_whole() -> None:
    """Its moment is not known."""
    letter = DeadLetter(id=b"1-0", kind="events", reason="corrupt", buried_at=1.0, frame=b"\x09")

    line = json.loads(dead_line(letter))

    assert line["made_at"] is None
    assert base64.b64decode(line["frame"]) == b"\x09"


@pytest.mark.parametrize(("id_", "text"), [(7, "7"), (b"1-0", "1-0"), ((1, 0), "1-0")])
def test_ids_are_words(id_: Any, text: str) -> None:
    """Whatever a store takes for an id can be typed."""
    assert id_text(id_) == text
