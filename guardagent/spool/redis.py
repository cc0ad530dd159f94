"""Redis Streams and a consumer group: one spool for the processes of many hosts.

Owns: the keys `guardagent:{project}:...` of one Redis, cluster or sentinels' primary. In: frames,
ids. Out: the same after any crash of a process, and after one of Redis as far as Redis keeps what
it was given (append-only file, replicas).

A lease is an entry of the group's pending list, with the server's idle time, so clocks of different
hosts do not matter to it. Each operation is one script (`redis_scripts`): one answer to wait for,
and nothing half done when the process or the connection dies.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from guardagent._clock import SYSTEM_CLOCK, Clock
from guardagent.errors import SpoolError
from guardagent.fields import Kind
from guardagent.spool import redis_scripts as scripts
from guardagent.spool.frame import HEADER_BYTES, made_at
from guardagent.spool.later import Bystander
from guardagent.spool.redis_address import Address
from guardagent.spool.redis_form import (
    joined,
    read_entries,
    read_id,
    slices,
    write_id,
    write_ids,
    write_keys,
    write_runs,
)
from guardagent.spool.redis_link import RedisLink
from guardagent.spool.store import (
    PAGE_BYTES,
    Added,
    Census,
    Claim,
    DeadLetter,
    Depth,
    Id,
    WhenFull,
)

__all__ = ["RedisStore"]

_KINDS: tuple[Kind, ...] = get_args(Kind)
_DEAD_KEPT = 10_000
#: The part of the bound in bytes that dead letters may take beside it.
_DEAD_PART = 10
#: What one script takes at a time, for the server does nothing else meanwhile.
_RECORDS_AT_A_TIME, _BYTES_AT_A_TIME, _LETTERS_AT_A_TIME = 1_000, 1024 * 1024, 50
#: The holder of what was given back, and an idle time longer than any lease, in milliseconds.
_NOBODY, _LONG_AGO = "returned", 7 * 86_400_000


class RedisStore:
    """Keeps frames in Redis; see `Store`.

    Args:
        where: an address (see `Address`), or a client of redis-py, which serves as the pattern for
            connections of the store's own and is never closed.
        project: those of different projects in one Redis never meet.
        max_records: records kept, leased ones included.
        max_bytes: bytes of their frames.
        lease: seconds for which a claim holds without being renewed.
        owner: differs for every process and every agent in it.
        stale_after: seconds after which what waits is history.
        forget_after: seconds after which a consumer without leases that did nothing is forgotten.

    Raises:
        ConfigError: the address is wrong, or the client is not one of redis-py's.
    """

    def __init__(
        self,
        where: str | os.PathLike[str] | Any,
        project: str | None,
        *,
        max_records: int,
        max_bytes: int,
        when_full: WhenFull = "drop_oldest",
        lease: float = 15.0,
        owner: str,
        clock: Clock = SYSTEM_CLOCK,
        stale_after: float = 30.0,
        forget_after: float = 3_600.0,
    ) -> None:
        self._link = RedisLink(Address.parse(where) if isinstance(where, str) else where)
        self._keys = write_keys(project)
        # Zero records means no bound to a script: whoever appends asks for room first.
        self._bounds = (max_records if when_full == "drop_oldest" else 0, max_bytes)
        self._lease = max(1, int(lease * 1000))
        self._owner = owner
        self._clock = clock
        self._stale_after = stale_after
        self._forget_after = int(forget_after * 1000)
        self._has_claimed = False
        self._bystander = Bystander("The spool in Redis")

    def __repr__(self) -> str:
        return f"<RedisStore {self._link!r}>"

    # -- records -----------------------------------------------------------------------------

    def append(self, frames: Mapping[Kind, Sequence[bytes]]) -> Added:
        """Add to the streams, a bounded part in each script."""
        parts = [
            (kind, part)
            for kind, some in frames.items()
            for part in slices(some, _RECORDS_AT_A_TIME, _BYTES_AT_A_TIME)
        ]
        if len({kind for kind, _ in parts}) == len(parts):  # usually there is one of a kind
            return self._append(dict(parts))
        whole = Added(0, {}, Depth(0, 0, ""))
        for kind, part in parts:
            whole = _sum(whole, self._append({kind: part}))
        return whole

    def _append(self, frames: Mapping[Kind, Sequence[bytes]]) -> Added:
        written = [text for kind in _KINDS for text in joined(frames.get(kind, ()))]
        lost, *ends, records, nbytes, generation = self._run(
            scripts.APPEND, *self._bounds, *written
        )
        spans = {
            kind: (read_id(first), read_id(last))
            for kind, first, last in zip(_KINDS, ends[::2], ends[1::2], strict=True)
            if first
        }
        return Added(lost, spans, _depth(records, nbytes, generation))

    def claim(
        self,
        limit: int,
        max_bytes: int,
        batch_id: str,
        created_at: float,
        held: Mapping[Kind, Sequence[Id]] | None = None,
    ) -> tuple[Claim | None, Depth]:
        """Take over what was pending for longer than a lease, or read from the group."""
        later, kind, ids, lengths, blob, name, named_at, *depth = self._run(
            scripts.CLAIM,
            *(self._owner, limit, max_bytes, HEADER_BYTES, batch_id, repr(created_at)),
            *(self._lease, repr(self._clock.now()), self._stale_after, self._forget_after),
            *(write_ids((held or {}).get(kind, ())) for kind in _KINDS),
        )
        self._bystander.note(later)
        if not kind:
            return None, _depth(*depth)
        self._has_claimed = True
        entries = read_entries(ids, lengths, blob)
        claim = Claim(
            kind=_kind(kind),
            entries=entries,
            batch_id=name.decode("utf-8", "replace") or None,
            created_at=float(named_at) if named_at else None,
        )
        return claim, _depth(*depth)

    def settle(self, kind: Kind, ids: Sequence[Id]) -> tuple[int, Depth]:
        """Acknowledge and delete."""
        return self._settle(kind, ids, "")

    def bury(self, kind: Kind, ids: Sequence[Id], reason: str) -> tuple[int, Depth]:
        """Move to the stream of dead letters; the oldest there give way."""
        return self._settle(kind, ids, reason or "unknown")

    def _settle(self, kind: Kind, ids: Sequence[Id], reason: str) -> tuple[int, Depth]:
        gone, depth = 0, None
        for part in _parts(ids):
            n, *counts = self._run(
                scripts.SETTLE,
                *(kind, write_runs(part), reason, repr(self._clock.now())),
                *(_DEAD_KEPT, self._bounds[1] // _DEAD_PART),
            )
            gone, depth = gone + n, _depth(*counts)
        return gone, depth or self.depth()

    def renew(self, held: Mapping[Kind, Sequence[Id]]) -> tuple[Mapping[Kind, Sequence[Id]], Depth]:
        """Set the idle time of this owner's to zero."""
        return self._hand(held, self._owner, 0)

    def give_back(self, held: Mapping[Kind, Sequence[Id]]) -> None:
        """Let nobody hold them, and for longer than any lease."""
        self._hand(held, _NOBODY, _LONG_AGO)

    def _hand(
        self, held: Mapping[Kind, Sequence[Id]], receiver: str, idle: int
    ) -> tuple[Mapping[Kind, Sequence[Id]], Depth]:
        runs = [write_runs(held.get(kind, ())) for kind in _KINDS]
        *found, records, nbytes, generation = self._run(
            scripts.RENEW, self._owner, receiver, idle, *runs
        )
        ids = [[read_id(id_) for id_ in some.split()] for some in found]
        return dict(zip(_KINDS, ids, strict=True)), _depth(records, nbytes, generation)

    def expire(self, before: float) -> tuple[int, Depth]:
        """Delete from the front of what nobody holds, until a record is young enough."""
        gone = 0
        while True:
            n, left, *depth = self._run(scripts.EXPIRE, repr(before))
            gone += n
            if left or not n:
                return gone, _depth(*depth)

    # -- questions ---------------------------------------------------------------------------

    def depth(self) -> Depth:
        """Return the lengths of the streams, and the bytes counted with each change."""
        return _depth(*self._run(scripts.DEPTH))

    def oldest_at(self) -> float | None:
        """Return the older of the streams' first records' moments."""
        return min(map(made_at, self._run(scripts.OLDEST)), default=None)

    def holds(self, kind: Kind, first: Id, last: Id) -> bool:
        """Look for one."""
        return bool(self._run(scripts.HOLDS, kind, write_id(first), write_id(last)))

    def extent(self) -> Mapping[Kind, tuple[Id, Id]]:
        """Look at both ends of the streams."""
        ends = self._run(scripts.EXTENT)
        pairs = zip(_KINDS, ends[::2], ends[1::2], strict=True)
        return {kind: (read_id(first), read_id(last)) for kind, first, last in pairs if first}

    def waiting(self, limit: int, after: tuple[Kind, Id] | None = None) -> Sequence[Any]:
        """Return records of the first kind, then of the second."""
        start, id_ = after or (_KINDS[0], 0)
        found: list[Any] = []
        for kind in _KINDS[_KINDS.index(start) :]:
            since, nbytes = id_ if kind == start else 0, 0
            while len(found) < limit and nbytes < PAGE_BYTES:
                count = min(limit - len(found), _RECORDS_AT_A_TIME)
                answer = self._run(scripts.WAITING, kind, write_id(since), count)
                entries = read_entries(*answer)
                if not entries:
                    break
                found += [(kind, *entry) for entry in entries]
                since, nbytes = entries[-1][0], nbytes + len(answer[-1])
            if found:
                break
        return found

    def get(self, name: str) -> bytes | None:
        """Look it up."""
        value: bytes | None = self._run(scripts.GET, name)
        return value

    def put(self, name: str, value: bytes) -> None:
        """Replace it."""
        self._run(scripts.PUT, name, value)

    # -- what operators do -------------------------------------------------------------------

    def dead(self, limit: int, after: Id | None = None) -> Sequence[DeadLetter]:
        """Return entries of the stream of dead letters."""
        found: list[DeadLetter] = []
        since, nbytes = after or 0, 0
        while len(found) < limit and nbytes < PAGE_BYTES:
            count = min(limit - len(found), _RECORDS_AT_A_TIME)
            entries = self._run(scripts.DEAD, write_id(since), count)
            if not entries:
                break
            letters = [letter for entry in entries if (letter := _letter(*entry)) is not None]
            found += letters
            since = read_id(entries[-1][0])
            nbytes += sum(len(letter.frame) for letter in letters)
        return found

    def count_dead(self) -> int:
        """Return the length of that stream."""
        return int(self._run(scripts.COUNT_DEAD))

    def census(self) -> Census:
        """Return the tally that the scripts keep."""
        nbytes, later, *tally = self._run(scripts.CENSUS)
        reasons = (reason.decode("utf-8", "replace") for reason in tally[::2])
        return Census(dict(zip(reasons, tally[1::2], strict=True)), int(nbytes), later)

    def requeue(self, ids: Sequence[Id]) -> int:
        """Append them anew."""
        return sum(
            self._run(scripts.REQUEUE, *self._bounds, write_ids(part))
            for part in _parts(ids, _LETTERS_AT_A_TIME)
        )

    def discard(self, ids: Sequence[Id]) -> int:
        """Delete them."""
        return sum(
            self._run(scripts.DISCARD, write_ids(part)) for part in _parts(ids, _LETTERS_AT_A_TIME)
        )

    def purge(self) -> int:
        """Empty both streams and begin the group anew behind them."""
        return int(self._run(scripts.PURGE))

    def abandon(self) -> None:
        """Leave the connections to the parent."""
        self._has_claimed = False  # the consumer is the parent's
        self._link.abandon()

    def close(self) -> None:
        """Withdraw from the group, unless that takes waiting, and close the connections."""
        if self._has_claimed and self._link.is_well:
            with contextlib.suppress(SpoolError):
                self._run(scripts.LEAVE, self._owner)
        self._has_claimed = False
        self._link.close()

    def _run(self, script: scripts.Script, *args: Any) -> Any:
        return self._link.run(script, self._keys, *args)


def _depth(records: int, nbytes: int, generation: bytes) -> Depth:
    return Depth(records, nbytes, generation.decode("utf-8", "replace"))


def _kind(name: bytes) -> Kind:
    return "events" if name == b"events" else "metrics"


def _parts(ids: Sequence[Id], size: int = _RECORDS_AT_A_TIME) -> list[Sequence[Id]]:
    return [ids[start : start + size] for start in range(0, len(ids), size)]


def _sum(one: Added, other: Added) -> Added:
    spans = dict(one.spans)
    for kind, (first, last) in other.spans.items():
        spans[kind] = spans[kind][0] if kind in spans else first, last
    return Added(one.lost + other.lost, spans, other.depth)


def _letter(id_: bytes, fields: Sequence[bytes]) -> DeadLetter | None:
    """Read an entry; None when it is none of ours."""
    named = dict(zip(fields[::2], fields[1::2], strict=False))
    try:
        kind, reason, moment, frame = (named[name] for name in (b"k", b"r", b"t", b"f"))
        return DeadLetter(
            id=read_id(id_),
            kind=_kind(kind),
            reason=reason.decode("utf-8", "replace"),
            buried_at=float(moment),
            frame=frame,
        )
    except (KeyError, ValueError):
        return None
