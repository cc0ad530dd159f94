"""Every kind of answer, and the odd ones: what is accepted, split or given up."""

from __future__ import annotations

import tracemalloc

import pytest

from tests.conftest import MakeAgent
from tests.support.accounts import (
    Errors,
    assert_delivered,
    capture,
    event,
    repeats,
)
from tests.support.answers import (
    Accept,
    Answer,
    BrokenJson,
    RefuseKeys,
    RefuseOver,
    Status,
)
from tests.support.backend import Backend
from tests.support.breakdowns import (
    EndlessBody,
    GzipBomb,
    HugeBody,
    HugeHead,
    MalformedStatusLine,
)

BODIES = [
    b"",
    b"{}",
    b"[]",
    b"null",
    b"true",
    b"42",
    b'"ok"',
    b'{"success": true}',
    b'{"success": true, "errors": []}',
    b'{"success": tr',
    b"<html>OK</html>",
    b"\xff\xfe\x00",
    b'{"rejected": []}',
    b'{"rejected": null, "errors": null}',
    b"[" * 50_000,
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:20]))
def test_success_needs_no_certain_body(
    backend: Backend, make_agent: MakeAgent, body: bytes
) -> None:
    """A 200 whose body does not say otherwise is acceptance."""
    backend.script(Status(200, {"Content-Type": "application/json"}, body))
    agent = make_agent()

    keys = capture(agent, 5)

    assert agent.flush(timeout=10.0)
    assert_delivered(agent, backend, keys)
    assert len(backend.requests) == 1


@pytest.mark.parametrize("code", [200, 201, 202, 203, 204, 205, 206, 207, 226])
def test_every_2xx_is_success(backend: Backend, make_agent: MakeAgent, code: int) -> None:
    """202 and 204 are acceptance like 200."""
    backend.script(Status(code))
    agent = make_agent()

    keys = capture(agent, 5)

    assert agent.flush(timeout=10.0)
    assert_delivered(agent, backend, keys)
    assert len(backend.requests) == 1


def test_broken_json_is_success(backend: Backend, make_agent: MakeAgent) -> None:
    """A 200 whose JSON stops halfway was still a 200."""
    backend.script(BrokenJson())
    agent = make_agent()

    keys = capture(agent, 5)

    assert agent.flush(timeout=10.0)
    assert_delivered(agent, backend, keys)
    assert repeats(backend.received) == []


REFUSALS = [b'{"success": false}', b'{"success": true, "errors": ["no"]}', b'{"errors": {"a": 1}}']


@pytest.mark.parametrize("body", REFUSALS, ids=repr)
def test_refusal_in_a_success_is_tried_again(
    backend: Backend, make_agent: MakeAgent, body: bytes
) -> None:
    """A 200 that says it failed is not acceptance; the batch is offered again."""
    backend.script(Status(200, body=body, accepts=False))
    agent = make_agent()

    keys = capture(agent, 5)

    assert agent.flush(timeout=15.0)
    assert_delivered(agent, backend, keys)
    assert len(backend.requests) == 2


def test_refusal_for_ever_is_given_up(backend: Backend, make_agent: MakeAgent) -> None:
    """A batch that is refused each time is counted as rejected, and the next one is sent."""
    refusal = Status(200, body=b'{"success": false}', accepts=False)
    backend.script(*[refusal] * 3)
    agent = make_agent(retry_attempts=2)
    lost = capture(agent, 5)
    assert agent.flush(timeout=15.0)

    keys = lost + capture(agent, 5)

    assert agent.flush(timeout=15.0)
    assert_delivered(agent, backend, keys, dropped=lost)
    assert agent.stats().dropped["rejected"] == 5


def test_single_refused_records_are_the_only_ones_lost(
    backend: Backend, make_agent: MakeAgent
) -> None:
    """Of a batch accepted in part the rest is final, and nothing is sent again."""
    backend.script(RefuseKeys(2))
    agent = make_agent(buffer_size=10)

    keys = capture(agent, 10)

    assert agent.flush(timeout=10.0)
    refused = set(keys) - backend.keys
    assert 0 < len(refused) <= 2
    assert_delivered(agent, backend, keys, dropped=refused)
    assert agent.stats().dropped["rejected"] == len(refused)
    assert repeats(backend.received) == []


@pytest.mark.parametrize("code", [400, 402, 404, 405, 409, 410, 415, 418, 422, 451])
def test_final_refusal_is_counted_and_the_next_batch_sent(
    backend: Backend, make_agent: MakeAgent, code: int
) -> None:
    """A 4xx about the batch gives that batch up, once, and holds nobody else up."""
    drops: list[tuple[str, int]] = []
    errors = Errors()
    backend.script(Status(code, body=b'{"detail": "no"}'))
    agent = make_agent(on_error=errors, on_drop=lambda reason, n: drops.append((reason, n)))
    lost = capture(agent, 5)
    assert agent.flush(timeout=10.0)

    keys = lost + capture(agent, 5)

    assert agent.stop(timeout=10.0)
    assert_delivered(agent, backend, keys, dropped=lost)
    assert agent.stats().dropped["rejected"] == 5
    assert len(backend.requests) == 2
    assert ("rejected", 5) in drops
    assert len(errors.seen) == 1


def test_final_refusals_never_open_the_breaker(backend: Backend, make_agent: MakeAgent) -> None:
    """Ten refused batches in a row do not stop the eleventh."""
    backend.script(*[Status(422)] * 10)
    agent = make_agent()
    lost: list[str] = []
    for _ in range(10):
        lost += capture(agent)
        assert agent.flush(timeout=10.0)
    assert agent.stats().breaker == "closed"

    keys = lost + capture(agent)

    assert agent.flush(timeout=10.0)
    assert_delivered(agent, backend, keys, dropped=lost)


def test_too_large_batches_are_split(backend: Backend, make_agent: MakeAgent) -> None:
    """A 413 halves the batch until it fits; each id arrives once."""
    backend.default = RefuseOver(6_000)
    agent = make_agent(buffer_size=5_000)

    keys = capture(agent, 200, metadata={"text": "x" * 300})

    assert agent.flush(timeout=20.0)
    assert_delivered(agent, backend, keys)
    assert repeats(backend.received) == []
    assert agent.stats().breaker == "closed"


def test_halves_settle_by_themselves(backend: Backend, make_agent: MakeAgent) -> None:
    """When one half of a split batch is accepted and the other is not, only that is sent again."""
    backend.script(Status(413), Accept(), Status(503), Status(503), Status(503))
    agent = make_agent(buffer_size=5_000)

    keys = capture(agent, 20)

    assert agent.flush(timeout=20.0)
    assert_delivered(agent, backend, keys)
    assert repeats(backend.received) == []


def test_event_too_large_for_the_backend_costs_only_itself(
    backend: Backend, make_agent: MakeAgent
) -> None:
    """A record that does not fit even alone is counted; its neighbours arrive."""
    backend.default = RefuseOver(4_000)
    agent = make_agent(buffer_size=5_000, max_payload_size=100_000)
    large = event(metadata={"text": "x" * 8_000})

    keys = capture(agent, 10)
    assert agent.capture(large)
    keys += [large.idempotency_key, *capture(agent, 10)]

    assert agent.flush(timeout=20.0)
    assert_delivered(agent, backend, keys, dropped=[large.idempotency_key])
    assert agent.stats().dropped["too_large"] == 1


def test_refusal_of_any_size_ends(backend: Backend, make_agent: MakeAgent) -> None:
    """A backend that finds everything too large is not asked for ever."""
    backend.default = RefuseOver(0)
    agent = make_agent(buffer_size=5_000)

    keys = capture(agent, 16)

    assert agent.flush(timeout=20.0)
    assert_delivered(agent, backend, keys, dropped=keys)
    assert agent.stats().dropped["too_large"] == 16
    assert len(backend.requests) == 31


FLOODS = [
    EndlessBody(),
    GzipBomb(),
    HugeHead(),
    *[HugeBody(50, code) for code in (200, 301, 400, 401, 413, 429, 500)],
]


@pytest.mark.parametrize("flood", FLOODS, ids=str)
def test_flood_is_cut_off(backend: Backend, make_agent: MakeAgent, flood: Answer) -> None:
    """However much a backend says, little of it is read and kept, and delivery goes on."""
    backend.script(flood)
    agent = make_agent()
    tracemalloc.start()
    try:
        keys = capture(agent)
        assert agent.flush(timeout=20.0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    is_final = isinstance(flood, HugeBody) and flood.code in (400, 413)
    assert_delivered(agent, backend, keys, dropped=keys if is_final else ())
    assert peak < 16 * 1024 * 1024  # the server's own megabyte or two included


MALFORMED = [
    b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
    b"HTTP/1.1 banana OK\r\n\r\n",
    b"HTTP/1.1 99999 OK\r\n\r\n",
    b"HTTP/9.9 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: banana\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"\x00\xff\xfe" * 100,
    b"x" * 100_000,
    b"\r\n\r\n\r\n",
]


@pytest.mark.parametrize("line", MALFORMED, ids=lambda line: repr(line[:24]))
def test_what_is_not_http_is_retried(backend: Backend, make_agent: MakeAgent, line: bytes) -> None:
    """Nonsense instead of an answer is an outage: the batch is sent again."""
    backend.script(MalformedStatusLine(line))
    agent = make_agent()

    keys = capture(agent, 5)

    assert agent.flush(timeout=15.0)
    assert_delivered(agent, backend, keys)
    assert len(backend.requests) == 2


@pytest.mark.parametrize("encoding", ["gzip", "br", "gzip, gzip", "nonsense", "deflate"])
def test_unreadable_encoding_is_success(
    backend: Backend, make_agent: MakeAgent, encoding: str
) -> None:
    """A 200 in an encoding that cannot be undone was still a 200."""
    backend.script(Status(200, {"Content-Encoding": encoding}, b"\x1f\x8b not really"))
    agent = make_agent()

    keys = capture(agent, 5)

    assert agent.flush(timeout=10.0)
    assert_delivered(agent, backend, keys)
