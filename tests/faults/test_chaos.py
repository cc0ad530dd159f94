"""Seeded rows of faults in any order: whatever happened, both books agree in the end."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest

from tests.conftest import MakeAgent
from tests.support.accounts import assert_balanced, capture, repeats
from tests.support.answers import (
    Accept,
    Answer,
    BrokenJson,
    CloseIdle,
    RefuseKeys,
    RefuseOver,
    Status,
)
from tests.support.backend import Backend
from tests.support.breakdowns import (
    AcceptThenReset,
    CloseBeforeAnswer,
    CloseInHead,
    HangBeforeHeaders,
    HangInBody,
    MalformedStatusLine,
    ResetBeforeAnswer,
    ResetInBody,
    ShortBody,
)

#: What may happen to a request, and how often among a hundred.
WEATHER: list[tuple[Answer, int]] = [
    (Accept(), 40),
    (BrokenJson(), 3),
    (CloseIdle(), 5),
    (RefuseKeys(1), 3),
    (RefuseOver(3_000), 8),
    (Status(422), 2),
    (Status(429), 3),
    (Status(429, {"Retry-After": "nonsense"}), 3),
    (Status(503), 8),
    (ResetBeforeAnswer(), 5),
    (CloseBeforeAnswer(), 5),
    (CloseInHead(), 3),
    (MalformedStatusLine(), 3),
    (HangBeforeHeaders(), 2),
    (HangInBody(), 1),
    (AcceptThenReset(), 3),
    (ResetInBody(), 2),
    (ShortBody(), 1),
]
DEAF = (AcceptThenReset, HangInBody, ResetInBody, ShortBody)


@pytest.mark.parametrize("seed", range(4))
def test_both_books_agree(backend: Backend, make_agent: MakeAgent, seed: int) -> None:
    """What was captured is received, or counted; twice only when an acceptance went unheard."""
    rng = random.Random(seed)
    answers, weights = zip(*WEATHER, strict=True)
    weather = rng.choices(answers, weights, k=150)
    backend.script(*weather)
    losses: dict[str, int] = {}

    def on_drop(reason: str, n: int) -> None:
        losses[reason] = losses.get(reason, 0) + n

    agent = make_agent(
        buffer_size=20, max_batch_size=20, timeout=0.6, retry_attempts=3, on_drop=on_drop
    )
    keys = _work(agent, backend, rng)

    assert agent.flush(timeout=40.0)
    assert agent.stop(timeout=10.0)
    stats = agent.stats()
    assert_balanced(agent)
    assert backend.unreadable == []
    assert (stats.captured, stats.pending) == (len(keys), 0)
    assert backend.keys <= set(keys)
    missing = set(keys) - backend.keys
    dropped = sum(stats.dropped.values())
    assert set(losses) <= {"rejected", "too_large"}
    assert losses == {reason: n for reason, n in stats.dropped.items() if n}
    # A refusal may follow an acceptance that went unheard: then a loss is counted that is none.
    assert len(missing) <= dropped
    if not any(isinstance(answer, DEAF) for answer in weather):
        assert len(missing) == dropped
        assert repeats(backend.received) == []


def _work(agent: Any, backend: Backend, rng: random.Random) -> list[str]:
    """Capture from four threads, while the backend is taken away now and then."""
    keys: list[str] = []
    seeds = [rng.random() for _ in range(4)]

    def capture_some(seed: float) -> None:
        own = random.Random(seed)
        for _ in range(40):
            filling = "x" * own.choice([0, 10, 500])
            keys.extend(capture(agent, own.randint(1, 8), metadata={"filling": filling}))
            if own.random() < 0.1:
                agent.flush(timeout=0.02)

    workers = [threading.Thread(target=capture_some, args=(seed,)) for seed in seeds]
    for worker in workers:
        worker.start()
    for count in (5, 15):
        backend.wait_for_requests(count)
        backend.down()
        backend.up()
    for worker in workers:
        worker.join()
    return keys
