"""Counting what arrives."""

from __future__ import annotations

from guardagent.cli.tally import Row, Tally, printable
from tests.cli.arrivals import arrival, refusal


def test_types_are_counted_apart() -> None:
    """Each kind and type has its own row, the kinds together and the most frequent first."""
    tally = Tally()
    tally.add([arrival("a"), arrival("b"), arrival("b", agent="host-2", at=1_004.0)])
    tally.add([arrival("a", kind="metric")])

    assert tally.rows(now=1_004.0) == [
        Row("event", "b", count=2, rate=0.2, last_seen_at=1_004.0, agents=2),
        Row("event", "a", count=1, rate=0.1, last_seen_at=1_000.0, agents=1),
        Row("metric", "a", count=1, rate=0.1, last_seen_at=1_000.0, agents=1),
    ]


def test_the_rate_is_of_the_last_seconds() -> None:
    """What came before the window counts, but has no rate any more."""
    tally = Tally()
    tally.add([arrival(at=1_000.0 + second) for second in range(30)])

    (busy,) = tally.rows(now=1_029.0)
    (quiet,) = tally.rows(now=1_060.0)

    assert (busy.count, busy.rate) == (30, 1.0)
    assert (quiet.count, quiet.rate) == (30, 0.0)


def test_names_without_end_are_counted_together() -> None:
    """A sender that invents names gets no row for each."""
    tally = Tally()
    tally.add(arrival(f"name-{number}", agent=f"host-{number}") for number in range(1_500))
    tally.add(arrival("same", agent=f"host-{number}") for number in range(1_500))

    rows = tally.rows(now=1_000.0)
    others = next(row for row in rows if row.type == "(others)")

    assert len(rows) == 1_001
    assert (others.count, others.agents) == (2_000, 1_000)


def test_the_last_refusal_is_remembered() -> None:
    """What was refused last can be told in one line."""
    tally = Tally()
    before = tally.last_refusal
    tally.add([refusal("X-API-Key: missing"), arrival(), refusal("body: not JSON")])

    assert before == ""
    assert tally.last_refusal == "POST /api/v1/events: body: not JSON"


def test_a_name_cannot_command_the_terminal() -> None:
    """Escape sequences and line ends from elsewhere are made visible, and long names cut."""
    tally = Tally()
    tally.add([arrival("\x1b[2Jgone\r\n")])

    (row,) = tally.rows(now=1_000.0)

    assert row.type == "\ufffd[2Jgone\ufffd\ufffd"
    assert printable("x" * 200) == "x" * 119 + "…"
    assert printable("x" * 120) == "x" * 120
