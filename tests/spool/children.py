"""What other processes do to a spool's file; imported by spawned ones, so kept light."""

from __future__ import annotations

import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

from guardagent.errors import SpoolError
from guardagent.spool.durable import DurableSpool
from guardagent.spool.frame import pack
from guardagent.spool.memory import MemorySpool
from guardagent.spool.sqlite import SQLiteStore
from guardagent.testing.clock import ManualClock
from tests.scripted import keys, record, records

__all__ = [
    "append_and_settle",
    "append_for_ever",
    "claim_and_die",
    "meet_a_full_disk",
    "meet_a_read_only_folder",
]

LARGE = 1 << 30
#: An account that owns nothing, as far as the kernel is concerned.
_NOBODY = 65_534


def store_at(path: str, **settings: Any) -> SQLiteStore:
    given: dict[str, Any] = {"max_records": 10**6, "max_bytes": LARGE, "owner": f"{os.getpid()}"}
    return SQLiteStore(path, **{**given, **settings})


def spool_at(path: str, clock: ManualClock, errors: list[SpoolError]) -> DurableSpool:
    return DurableSpool(
        store_at(path, clock=clock),
        MemorySpool(10**6, LARGE),
        lease=15.0,
        max_records=10**6,
        max_bytes=LARGE,
        clock=clock,
        on_error=errors.append,
    )


def append_and_settle(path: str, number: int, count: int, total: int, report: str) -> None:
    """Put `count` records in and deliver whatever there is, until all have delivered `total`."""
    store = store_at(path)
    found: list[str] = []
    mark = Path(report).with_suffix(".done")
    mark.touch()
    for start in range(number * count, (number + 1) * count, 50):
        store.append({"events": [pack(one) for one in records(50, start=start, created_at=2e9)]})
        _claim(store, found, 60)
    while _claim(store, found, 60) or store.depth().records:
        pass
    Path(report).write_text(json.dumps(found))
    store.close()


def _claim(store: SQLiteStore, found: list[str], limit: int) -> bool:
    claim, _ = store.claim(limit, LARGE, "name", 0.0)
    if claim is None:
        return False
    ids = [one[0] for one in claim.entries]
    found.extend(keys(frame[13:] for _, frame in claim.entries))
    assert store.settle(claim.kind, ids)[0] == len(ids)
    return True


def append_for_ever(path: str, size: int) -> None:
    """Put hundreds in at a time, half of them metrics, until somebody ends it."""
    store, start = store_at(path), 0
    while True:
        events = [pack(one) for one in records(50, start=start, size=size)]
        metrics = [pack(one) for one in records(50, "metrics", start=start, size=size)]
        store.append({"events": events, "metrics": metrics})
        start += 50


def claim_and_die(path: str, report: str) -> None:
    """Claim a batch, tell what it was, and be killed with it."""
    clock, errors = ManualClock(), list[SpoolError]()
    spool = spool_at(path, clock, errors)
    batch = spool.claim(7, LARGE, 1_800_000_000.5)
    assert batch is not None
    Path(report).write_text(json.dumps([batch.batch_id, batch.created_at, keys(batch.bodies)]))
    os.kill(os.getpid(), signal.SIGKILL)


def meet_a_full_disk(path: str, report: str) -> None:
    """Let no file grow beyond a bound, as on a full disk, and then let them grow again."""
    clock, errors = ManualClock(), list[SpoolError]()
    spool = spool_at(path, clock, errors)
    spool.append(records(10, size=1_000))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, hard))
    for start in range(10, 1_010, 50):
        spool.append(records(50, start=start, size=1_000))
        clock.advance(1.0)
    during = _state(spool)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    _report(report, spool, clock, errors, during)


def meet_a_read_only_folder(path: str, report: str) -> None:
    """As somebody who may not write there, and may later."""
    clock, errors = ManualClock(), list[SpoolError]()
    _act_as_nobody(os.path.dirname(path))  # noqa: PTH120 - as short
    folder = Path(path).parent
    folder.chmod(0o500)
    spool = spool_at(path, clock, errors)
    spool.append(records(20))
    clock.advance(1.0)
    spool.append(records(20, start=20))
    during = _state(spool)
    folder.chmod(0o700)
    _report(report, spool, clock, errors, during)
    os._exit(0)  # whoever measures coverage could not write it down as somebody without rights


def _act_as_nobody(folder: str) -> None:
    """Do without the superuser's right to write everywhere."""
    if os.geteuid() == 0:
        os.chown(folder, _NOBODY, _NOBODY)
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)


def _state(spool: DurableSpool) -> list[Any]:
    return [spool.durable, spool.at_risk() > 0, spool.balance(), spool.pending()]


def _report(
    report: str,
    spool: DurableSpool,
    clock: ManualClock,
    errors: list[SpoolError],
    during: list[Any],
) -> None:
    told = sorted({str(error).rpartition(": ")[2] for error in errors})
    clock.advance(10.0)
    spool.tend()
    after, found = _state(spool), list[str]()
    while (batch := spool.claim(500, LARGE, 0.0)) is not None:
        found += keys(batch.bodies)
        spool.ack(batch)
    spool.close()
    answer = {"during": during, "after": after, "found": found, "errors": told, "n": len(errors)}
    Path(report).write_text(json.dumps(answer))


def one_more(path: str) -> None:
    """Put one record in."""
    store = store_at(path)
    store.append({"events": [pack(record(99))]})
    store.close()
