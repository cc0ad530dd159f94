"""The form of a record in a durable spool."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardagent.encoding import Record
from guardagent.errors import FrameError, SpoolError
from guardagent.spool.frame import HEADER_BYTES, made_at, pack, unpack, weight

BODY = b'{"idempotency_key":"k"}'
MOMENT = 1_800_000_000.123456
FRAME = pack(Record("events", BODY, MOMENT))


def test_a_frame_is_this() -> None:
    """Other releases read what this one has written: the layout is fixed."""
    assert FRAME.hex() == "01" + "41dad2748007e6b4" + "358ff431" + BODY.hex()


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(body=st.binary(min_size=1, max_size=300), moment=st.floats(0, 1e12))
def test_what_was_packed_is_unpacked(body: bytes, moment: float) -> None:
    """Whatever the body is made of."""
    frame = pack(Record("metrics", body, moment))

    assert unpack(frame) == body
    assert made_at(frame) == moment
    assert weight(frame) == len(body) + 1


def test_no_flipped_bit_of_the_body_goes_unseen() -> None:
    """Nor one of the version or of the checksum."""
    seen = 0
    for place in (0, *range(9, len(FRAME))):
        for bit in range(8):
            damaged = bytearray(FRAME)
            damaged[place] ^= 1 << bit
            with pytest.raises(FrameError):
                unpack(bytes(damaged))
            seen += 1

    assert seen == 8 * (len(FRAME) - 8)


@pytest.mark.parametrize("length", [*range(HEADER_BYTES + 1), len(FRAME) - 1])
def test_a_cut_frame_is_refused(length: int) -> None:
    """However little of it is left."""
    with pytest.raises(FrameError):
        unpack(FRAME[:length])


def test_a_newer_version_is_named() -> None:
    """An operator can tell a downgrade from damage; both are errors of the spool's."""
    with pytest.raises(FrameError, match="version 2 of a record is not known, only 1") as caught:
        unpack(b"\x02" + FRAME[1:])

    assert isinstance(caught.value, SpoolError)


@pytest.mark.parametrize("foreign", [None, "x" * 40, 5, 1.5, FRAME.hex()])
def test_what_is_not_of_bytes_is_refused(foreign: Any) -> None:
    """A database gives back whatever type somebody has written."""
    with pytest.raises(FrameError):
        unpack(foreign)
    assert made_at(foreign) == math.inf


@pytest.mark.parametrize(
    "frame", [b"", FRAME[: HEADER_BYTES - 1], b"\x02" + FRAME[1:], b"\x01" + b"\xff" * 40]
)
def test_a_moment_that_cannot_be_told_is_never(frame: bytes) -> None:
    """Nothing expires by a time that means something else; not a number is no time."""
    assert made_at(frame) == math.inf
