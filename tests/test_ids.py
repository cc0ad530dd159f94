"""Keys: random, unique, marked as UUID4, and safe to take from anywhere."""

from __future__ import annotations

import threading
import uuid

from guardagent._ids import KeySource, chance, format_key, new_key

#: More than a few blocks of keys.
MANY = 500


def test_keys_are_uuid4() -> None:
    """Every key of a block, the first and the last included, is a UUID4 of RFC 9562."""
    source = KeySource()

    keys = [uuid.UUID(bytes=source.take()) for _ in range(MANY)]

    assert {key.version for key in keys} == {4}
    assert {key.variant for key in keys} == {uuid.RFC_4122}


def test_a_single_key_is_a_uuid4() -> None:
    """A key drawn alone is no different."""
    keys = [uuid.UUID(bytes=new_key()) for _ in range(50)]

    assert {key.version for key in keys} == {4}
    assert {key.variant for key in keys} == {uuid.RFC_4122}
    assert len(set(keys)) == 50


def test_every_random_bit_is_used() -> None:
    """All but the six bits that RFC 9562 fixes take both values."""
    source = KeySource()
    numbers = [int.from_bytes(source.take(), "big") for _ in range(MANY)]

    ever_set, ever_clear = 0, 0
    for number in numbers:
        ever_set |= number
        ever_clear |= ~number
    both = ever_set & ever_clear & (2**128 - 1)

    assert both.bit_count() == 122


def test_no_key_comes_twice() -> None:
    """Keys of one source and of two differ."""
    one, other = KeySource(), KeySource()

    keys = [source.take() for source in (one, other) for _ in range(MANY)]

    assert len(set(keys)) == 2 * MANY


def test_threads_share_a_source() -> None:
    """Threads that race for keys of one block get different ones."""
    source = KeySource()
    start = threading.Barrier(8)
    taken: list[list[bytes]] = []

    def take() -> None:
        start.wait()
        taken.append([source.take() for _ in range(MANY)])

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    keys = {key for keys in taken for key in keys}
    assert len(keys) == 8 * MANY


def test_text_form() -> None:
    """A key is written as uuid.UUID writes it."""
    key = KeySource().take()

    assert format_key(key) == str(uuid.UUID(bytes=key))
    assert format_key(bytes(16)) == "00000000-0000-0000-0000-000000000000"


def test_chance_is_a_fraction() -> None:
    """Chance lies from 0 to below 1, on both sides of the middle, and is never the same."""
    drawn = [chance() for _ in range(100)]

    assert all(0 <= number < 1 for number in drawn)
    assert min(drawn) < 0.5 < max(drawn)
    assert len(set(drawn)) > 90
