"""The benchmarks' own smoke test: they run and fill their tables. No time is judged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "--quick", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_quick_run_fills_the_tables(tmp_path: Path) -> None:
    """A quick run of two subjects prints a row for each, and writes the same as RST."""
    tables = tmp_path / "tables.rst"
    measures = ("--measures", "ready,delivery,steady-8")

    done = _run("--only", "queue,guardagent", *measures, "--rst", str(tables))

    assert done.returncode == 0, done.stderr
    rows = [line.split()[:2] for line in done.stdout.splitlines()]
    assert ["guardagent", "failed"] not in rows
    assert sum(row[:1] == ["queue"] for row in rows) == 3
    assert sum(row[:1] == ["guardagent"] for row in rows) == 3
    assert tables.read_text(encoding="utf-8").strip() == done.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["flask", "django"])
def test_served_applications_lose_no_event(framework: str) -> None:
    """Behind gunicorn, what the view captures arrives, and so does what guardagent's shim does."""
    pytest.importorskip("gunicorn")
    pytest.importorskip(framework)
    subjects = ("none", "guardagent", "guardagent-shim")

    done = _run("--only", ",".join(subjects), "--measures", f"gunicorn-{framework}")

    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    lost = {row[0]: row[-1] for row in rows if row and row[0] in subjects}
    assert lost == dict.fromkeys(subjects, "0")
