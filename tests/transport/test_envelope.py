"""The JSON around the records."""

from __future__ import annotations

import json

import attrs
import pytest

from guardagent import __version__
from guardagent.fields import Kind
from guardagent.spool.protocol import Batch
from guardagent.transport.envelope import Envelope, records_bytes
from tests.support import strict

ENVELOPE = Envelope(project_id="p1", guard_version="5.0", guard_core_version=None)


def batch(count: int, kind: Kind = "events") -> Batch:
    bodies = [b'{"idempotency_key":"k%d"}' % n for n in range(count)]
    return Batch(kind=kind, bodies=bodies, created_at=1_800_000_000.25)


@pytest.mark.parametrize("count", [1, 2, 3, 50])
@pytest.mark.parametrize("kind", ["events", "metrics"])
def test_every_key_is_there_in_order(count: int, kind: Kind) -> None:
    """The keys of WIRE.md 2, whatever the kind and however many records there are."""
    one = batch(count, kind)

    document = strict.loads(ENVELOPE.wrap(one))

    assert list(document) == [
        "project_id",
        "events",
        "metrics",
        "batch_id",
        "created_at",
        "compressed",
        "agent_version",
        "guard_version",
        "guard_core_version",
    ]
    other = "metrics" if kind == "events" else "events"
    assert [record["idempotency_key"] for record in document[kind]] == [
        f"k{n}" for n in range(count)
    ]
    assert document[other] == []


def test_values_around_the_records() -> None:
    """As WIRE.md 2 has them; the time in ISO 8601 with a "T"."""
    one = batch(1)

    document = json.loads(ENVELOPE.wrap(one))

    assert document["project_id"] == "p1"
    assert document["batch_id"] == one.batch_id
    assert document["created_at"] == "2027-01-15T08:00:00.250000+00:00"
    assert document["compressed"] is False
    assert document["agent_version"] == __version__
    assert (document["guard_version"], document["guard_core_version"]) == ("5.0", None)


def test_without_a_project() -> None:
    """The backend wants a string all the same."""
    envelope = Envelope(project_id=None, guard_version=None, guard_core_version="1.0")

    assert json.loads(envelope.wrap(batch(1)))["project_id"] == "default"


def test_the_same_batch_gives_the_same_bytes() -> None:
    """However often it is asked for."""
    one = batch(5)

    assert ENVELOPE.wrap(one) == ENVELOPE.wrap(one)


def test_there_is_no_space() -> None:
    """Compact JSON, as the backend's own agent sends it."""
    assert b" " not in ENVELOPE.wrap(batch(3))


def test_a_name_that_needs_quoting() -> None:
    """A project's name cannot break out of its string."""
    envelope = Envelope(project_id='a"],"events":[', guard_version=None, guard_core_version=None)

    assert strict.loads(envelope.wrap(batch(1)))["project_id"] == 'a"],"events":['


@pytest.mark.parametrize("kind", ["events", "metrics"])
def test_room_is_left_for_the_envelope(kind: Kind) -> None:
    """Records of the allowed size make a request of the allowed size, comma for comma."""
    limit = 4_096
    room = records_bytes(limit, sealed=False)
    names = "n" * 128
    envelope = Envelope(project_id=names, guard_version=names, guard_core_version=names)
    bodies = [b'{"k":"%s"}' % (b"x" * (room // 4 - 9)) for _ in range(4)]
    assert sum(len(body) + 1 for body in bodies) <= room

    body = envelope.wrap(Batch(kind=kind, bodies=bodies, created_at=1_800_000_000.0))

    assert len(body) <= limit


@attrs.define
class Counting:
    """Seals nothing, and counts how often it was asked to."""

    name: str = "sealed"
    sealed: list[bytes] = attrs.field(factory=list)

    def seal(self, payload: bytes) -> str:
        self.sealed.append(payload)
        return f"{self.name}-{len(self.sealed)}"


@pytest.mark.parametrize("kind", ["events", "metrics"])
def test_sealed_batch(kind: Kind) -> None:
    """Inside are the records alone; outside is what the backend needs to open it."""
    sealer = Counting()
    one = batch(2, kind)

    body = ENVELOPE.wrap_sealed(one, sealer)

    inside = strict.loads(sealer.sealed[0])
    assert sorted(inside) == ["events", "metrics"]
    assert [record["idempotency_key"] for record in inside[kind]] == ["k0", "k1"]
    assert json.loads(body) == {
        "encrypted_payload": "sealed-1",
        "batch_id": one.batch_id,
        "agent_version": __version__,
        "guard_version": "5.0",
        "guard_core_version": None,
    }


def test_a_batch_is_sealed_once() -> None:
    """A retry sends the same bytes, not the same events under another nonce."""
    sealer, one = Counting(), batch(1)

    assert ENVELOPE.wrap_sealed(one, sealer) == ENVELOPE.wrap_sealed(one, sealer)


def test_a_batch_is_sealed_again_with_another_key() -> None:
    """When it was rotated before the batch was accepted."""
    old, new, one = Counting(), Counting("new"), batch(1)
    ENVELOPE.wrap_sealed(one, old)

    body = ENVELOPE.wrap_sealed(one, new)

    assert json.loads(body)["encrypted_payload"] == "new-1"
    assert new.sealed == old.sealed


def test_sealed_room() -> None:
    """Base64 adds a third."""
    assert records_bytes(5_120, sealed=True) == 3_072
