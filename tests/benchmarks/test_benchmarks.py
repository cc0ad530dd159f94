"""The benchmarks' own smoke test: they run and fill their tables. No time is judged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_quick_run_fills_the_tables(tmp_path: Path) -> None:
    """A quick run of two subjects prints a row for each, and writes the same as RST."""
    tables = tmp_path / "tables.rst"
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--only", "queue,guardagent"]

    done = subprocess.run(
        [*command, "--measures", "ready,delivery,steady-8", "--rst", str(tables)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    rows = [line.split()[:2] for line in done.stdout.splitlines()]
    assert ["guardagent", "failed"] not in rows
    assert sum(row[:1] == ["queue"] for row in rows) == 3
    assert sum(row[:1] == ["guardagent"] for row in rows) == 3
    assert tables.read_text(encoding="utf-8").strip() == done.stdout.strip()
