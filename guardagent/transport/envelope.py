"""The batch's JSON around its records (WIRE.md 2). Pure: bytes in, bytes out."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import attrs

from guardagent._version import __version__
from guardagent.plain import wire_time
from guardagent.spool.protocol import Batch
from guardagent.transport.sealing import Sealer, sort_keys

__all__ = ["Envelope", "records_bytes"]

#: Room to leave for everything around the records.
_ENVELOPE_BYTES = 1_024


def records_bytes(max_batch_bytes: int, *, sealed: bool) -> int:
    """Return how many bytes of records make a request of that size; base64 adds a third."""
    room = max_batch_bytes - _ENVELOPE_BYTES
    return room * 3 // 4 if sealed else room


@attrs.frozen(kw_only=True)
class Envelope:
    """What every batch of one configuration says of its sender."""

    project_id: str | None
    guard_version: str | None
    guard_core_version: str | None

    def wrap(self, batch: Batch) -> bytes:
        """Return the batch's body: the same bytes whenever it is asked for the same batch."""
        created_at = dt.datetime.fromtimestamp(batch.created_at, dt.timezone.utc)
        tail = {
            "batch_id": batch.batch_id,
            "created_at": wire_time(created_at),
            "compressed": False,
            "agent_version": __version__,
            "guard_version": self.guard_version,
            "guard_core_version": self.guard_core_version,
        }
        head = b'{"project_id":' + _json(self.project_id or "default") + b',"events":['
        if batch.kind == "events":
            end = b'],"metrics":[],' + _json(tail)[1:]
        else:
            head += b'],"metrics":['
            end = b"]," + _json(tail)[1:]
        # One join and no further copy: a batch is a quarter of a megabyte.
        first, *others = batch.bodies
        if not others:
            return head + first + end
        return b",".join([head + first, *others[:-1], others[-1] + end])

    def wrap_sealed(self, batch: Batch, sealer: Sealer) -> bytes:
        """Return the body of an encrypted batch; each attempt with the same key sends the same."""
        if batch.sealed is None or batch.sealed[0] is not sealer:
            records = b",".join(batch.bodies)
            events, metrics = (records, b"") if batch.kind == "events" else (b"", records)
            payload = b'{"events":[' + events + b'],"metrics":[' + metrics + b"]}"
            batch.sealed = sealer, sealer.seal(sort_keys(payload))
        return _json(
            {
                "encrypted_payload": batch.sealed[1],
                "batch_id": batch.batch_id,
                "agent_version": __version__,
                "guard_version": self.guard_version,
                "guard_core_version": self.guard_core_version,
            }
        )


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
