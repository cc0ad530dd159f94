"""From a store's claim to batches that can be sent. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from guardagent.errors import FrameError
from guardagent.spool.frame import unpack
from guardagent.spool.holding import Place
from guardagent.spool.protocol import Batch
from guardagent.spool.store import Claim

__all__ = ["Sorted", "batches_of", "sort_out"]


@attrs.frozen
class Sorted:
    """A claim's records.

    Args:
        ids: of the sound ones.
        bodies: of the sound ones.
        damaged: ids of those that cannot be read.
        fault: what is wrong with the last of these.
    """

    ids: Sequence[Any]
    bodies: Sequence[bytes]
    damaged: Sequence[Any]
    fault: FrameError | None


def sort_out(claim: Claim) -> Sorted:
    """Tell sound records from damaged and foreign ones."""
    ids: list[Any] = []
    bodies: list[bytes] = []
    damaged: list[Any] = []
    fault = None
    for id_, frame in claim.entries:
        try:
            bodies.append(unpack(frame))
            ids.append(id_)
        except FrameError as error:
            damaged.append(id_)
            fault = error
    return Sorted(ids, bodies, damaged, fault)


def batches_of(
    claim: Claim,
    sound: Sorted,
    *,
    limit: int,
    max_bytes: int,
    batch_id: str,
    created_at: float,
    generation: str,
) -> Iterator[Batch]:
    """Make batches within the bounds; the name is the claim's own when it is still the same."""
    if not sound.ids:
        return
    if claim.batch_id and claim.created_at and not sound.damaged:
        batch_id, created_at = claim.batch_id, claim.created_at
    batch = Batch(
        kind=claim.kind,
        bodies=sound.bodies,
        created_at=created_at,
        batch_id=batch_id,
        position=Place(sound.ids, generation),
    )
    cuts = _cuts(sound.bodies, limit, max_bytes)
    if len(cuts) == 1:
        yield batch
        return
    for first, last in zip(cuts, [*cuts[1:], len(batch)], strict=True):
        yield batch.part(first, last, batch.position.part(first, last))


def _cuts(bodies: Sequence[bytes], limit: int, max_bytes: int) -> list[int]:
    """Return where each batch begins; a body that is too large by itself is one of its own."""
    cuts, room = [0], max_bytes
    for n, body in enumerate(bodies):
        room -= len(body) + 1
        if n > cuts[-1] and (room < 0 or n - cuts[-1] >= limit):
            cuts.append(n)
            room = max_bytes - len(body) - 1
    return cuts
