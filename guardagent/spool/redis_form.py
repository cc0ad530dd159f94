"""How ids and frames are written for the scripts, and read from them.

An id of a stream, `<ms>-<n>`, is one integer here: it orders like the id, and consecutive ids are
consecutive integers. Frames travel as one string and their lengths: an argument or an answer for
each would cost more than all the rest. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

__all__ = [
    "joined",
    "read_entries",
    "read_id",
    "slices",
    "write_id",
    "write_ids",
    "write_keys",
    "write_prefix",
    "write_runs",
]

_BITS = 64
_MASK = (1 << _BITS) - 1
_KEYS = ("events", "metrics", "state", "dead", "batches", "kept")


def write_keys(project: str | None) -> list[bytes]:
    """Return the keys of a project, all in one slot of a cluster."""
    prefix = write_prefix(project)
    return [f"{prefix}{name}".encode("utf-8", "surrogatepass") for name in _KEYS]


def write_prefix(project: str | None) -> str:
    """Return what all keys of a project begin with."""
    # A brace would end the tag; and no project is called "%none", for the sign is escaped, too.
    tag = "%none"
    if project is not None:
        tag = project.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
    return f"guardagent:{{{tag}}}:"


def write_id(id_: int) -> str:
    """Return an id as streams have it."""
    return f"{id_ >> _BITS}-{id_ & _MASK}"


def read_id(text: bytes) -> int:
    """Return an id as an integer."""
    first, _, second = text.partition(b"-")
    return (int(first) << _BITS) | int(second)


def write_ids(ids: Sequence[int]) -> str:
    """Return ids one by one."""
    return " ".join(map(write_id, ids))


def write_runs(ids: Sequence[int]) -> str:
    """Return the first and the last id of each run of consecutive ones."""
    if not ids:
        return ""
    ordered = sorted(ids)
    ends: list[int] = [ordered[0]]
    last = ordered[0]
    for id_ in ordered:
        if id_ > last + 1:
            ends += last, id_
        last = id_
    ends.append(last)
    return write_ids(ends)


def joined(frames: Sequence[bytes]) -> tuple[str, bytes]:
    """Return lengths and bytes of frames."""
    return " ".join(map(str, map(len, frames))), b"".join(frames)


def read_entries(ids: bytes, lengths: bytes, blob: bytes) -> list[tuple[int, bytes]]:
    """Return pairs of id and frame."""
    ends = list(accumulate(map(int, lengths.split())))
    starts = [0, *ends]
    frames = [blob[start:end] for start, end in zip(starts, ends, strict=False)]
    return list(zip(map(read_id, ids.split()), frames, strict=True))


def slices(frames: Sequence[bytes], limit: int, max_bytes: int) -> Iterator[Sequence[bytes]]:
    """Cut a sequence into parts of bounded size; a part holds at least one."""
    start, room = 0, max_bytes
    for n, frame in enumerate(frames):
        room -= len(frame)
        if n > start and (room < 0 or n - start >= limit):
            yield frames[start:n]
            start, room = n, max_bytes - len(frame)
    if start < len(frames):
        yield frames[start:]
