"""What is measured, each in a fresh process: a subject in, named figures out."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from .process import cpu_seconds, refusing_port, resident_bytes, voluntary_switches
from .registry import is_installed
from .served import served
from .sink import counted_events
from .subjects.subject import NotApplicableError, Subject
from .web import driven_application

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["MEASURES", "Figures"]

Figures = dict[str, float]
# All steady threads together capture this often in a second, however many they are.
STEADY_RATE = 4_000.0
# Events that an agent encodes and appends at a time.
SLICE = 100


def ready(subject: Subject, port: int, scale: float) -> Figures:
    """Time the capture of an event that is built already, in microseconds."""

    def burst(count: int) -> list[int]:
        times: list[int] = []
        # Few at a time, as an application has them: built just before they are captured.
        for some in _bursts(count, 100):
            times += subject.time_ready([subject.build() for _ in range(some)])
        return times

    return _timed(subject, port, scale, burst)


def built(subject: Subject, port: int, scale: float) -> Figures:
    """Time building an event and capturing it, in microseconds."""
    return _timed(subject, port, scale, subject.time_built)


def _timed(subject: Subject, port: int, scale: float, burst: Callable[[int], list[int]]) -> Figures:
    _warm_up(subject, port)
    times: list[int] = []
    for count in _bursts(int(subject.events * scale), subject.burst):
        times += burst(count)
        subject.flush()
    subject.close()
    return _quantiles(times)


def start(subject: Subject, port: int, scale: float) -> Figures:
    """Measure what a process spends to import, start, deliver one event and stop."""
    subject.setup(port)
    subject.pour(1)
    subject.flush()
    subject.close()
    return {"cpu_ms": cpu_seconds() * 1e3}


def delivery(subject: Subject, port: int, scale: float) -> Figures:
    """Measure the whole process's CPU for each event that arrived, and how many arrive a second."""
    count = int(subject.events * scale)
    before = counted_events(port) if subject.delivers else 0
    subject.setup(port)
    began = time.perf_counter()
    for burst in _bursts(count, subject.burst):
        subject.pour(burst)
        subject.flush()
    elapsed = time.perf_counter() - began
    subject.close()
    cpu = cpu_seconds()
    arrived = counted_events(port) - before if subject.delivers else count
    if not arrived:
        raise NotApplicableError("nothing arrived")
    return {
        "cpu_ms": cpu * 1e3,
        "cpu_us": cpu / arrived * 1e6,
        "per_second": arrived / elapsed,
        "arrived": arrived,
        "missing": count - arrived,
    }


def append(subject: Subject, port: int, scale: float) -> Figures:
    """Measure how many encoded events a second a spool takes, and the CPU of each."""
    spool, records = subject.spool(port), subject.records(SLICE)
    spool.append(records)
    count = max(1, int(1.9 * subject.events * scale) // SLICE)
    began, before = time.perf_counter(), cpu_seconds()
    for _ in range(count):
        spool.append(records)
    elapsed, cpu = time.perf_counter() - began, cpu_seconds() - before
    kept = spool.pending()
    spool.close()
    return {
        "per_second": count * SLICE / elapsed,
        "cpu_us": cpu / count / SLICE * 1e6,
        "missing": (count + 1) * SLICE - kept,
    }


def memory(subject: Subject, port: int, scale: float) -> Figures:
    """Measure the resident bytes of each event that waits while the backend refuses."""
    if not subject.delivers or not subject.capacity:
        raise NotApplicableError("keeps nothing")
    count = int(subject.capacity * scale)
    with refusing_port() as refusing:
        subject.setup(refusing)
        _fill(subject, 1_000)
        before = resident_bytes()
        _fill(subject, count)
        # Not closed: it would wait for a backend that never comes.
        return {"bytes": (resident_bytes() - before) / count}


def _fill(subject: Subject, count: int) -> None:
    # Slowly enough for a thread that moves events on to keep up.
    for burst in _bursts(count, 1_000):
        subject.pour(burst)
        time.sleep(0.05)
    time.sleep(0.5)


def flask(subject: Subject, port: int, scale: float) -> Figures:
    """Measure what capturing one event a request adds to the CPU of a Flask application.

    Requests with and without an event take turns in one process, to have like conditions.
    """
    if not is_installed("flask"):
        raise NotApplicableError("no Flask")
    if not subject.threaded:
        raise NotApplicableError("belongs to one thread")
    count = max(10, int(100 * scale))
    spent = {"/plain": 0.0, "/captured": 0.0}
    _warm_up(subject, port)
    with driven_application(lambda: subject.capture(subject.build())) as ask:
        ask("/plain", count)
        ask("/captured", count)
        for path in ("/plain", "/captured") * 10:
            subject.flush()
            before = cpu_seconds()
            ask(path, count)
            subject.flush()
            spent[path] += cpu_seconds() - before
    subject.close()
    plain, captured = (seconds / count / 10 * 1e6 for seconds in spent.values())
    return {"plain_us": plain, "added_us": captured - plain, "added": captured / plain * 100 - 100}


def idle(subject: Subject, port: int, scale: float) -> Figures:
    """Count how often the threads of an idle process wake up in a second."""
    subject.setup(port)
    subject.pour(1)
    subject.flush()
    time.sleep(0.5)
    before, seconds = voluntary_switches(), max(1.0, 3.0 * scale)
    time.sleep(seconds)
    # The sleep above is one switch of the main thread.
    woken = max(0, voluntary_switches() - before - 1)
    subject.close()
    return {"per_second": woken / seconds}


def threads(subject: Subject, port: int, scale: float, *, count: int, is_steady: bool) -> Figures:
    """Time the capture of ready events in ``count`` threads, in microseconds.

    Steady threads sleep between captures, and share one rate; the others never pause.
    """
    if not subject.threaded:
        raise NotApplicableError("belongs to one thread")
    _warm_up(subject, port)
    each = max(10, int(6_400 * scale) // count)
    times = _crowd(subject, count, each, count / STEADY_RATE if is_steady else 0.0)
    subject.flush()
    subject.close()
    return _quantiles(times) | {"max": max(times) / 1e3}


def _crowd(subject: Subject, count: int, each: int, pause: float) -> list[int]:
    """Capture from ``count`` threads that start together, and give the time of each capture."""
    times: list[int] = []
    barrier = threading.Barrier(count)

    def member() -> None:
        events = [subject.build() for _ in range(each)]
        barrier.wait()
        if not pause:
            times.extend(subject.time_ready(events))
            return
        for event in events:
            time.sleep(pause)
            times.extend(subject.time_ready((event,)))

    crowd = [threading.Thread(target=member) for _ in range(count)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    return times


def _warm_up(subject: Subject, port: int) -> None:
    subject.setup(port)
    subject.pour(200)
    subject.flush()


def _bursts(count: int, most: int) -> Iterator[int]:
    while count > 0:
        yield min(count, most)
        count -= most


def _quantiles(times: list[int]) -> Figures:
    """Give the quantiles in microseconds, less what reading the clock takes."""
    ordered, clock = sorted(times), _clock_cost()
    return {
        name: max(0, ordered[int((len(ordered) - 1) * share)] - clock) / 1e3
        for name, share in (("p50", 0.5), ("p99", 0.99))
    }


def _clock_cost() -> int:
    empty = Subject()
    empty.capture = bool
    times = sorted(empty.time_ready([None] * 2_000))
    return times[len(times) // 2]


MEASURES: dict[str, Callable[[Subject, int, float], Figures]] = {
    "ready": ready,
    "built": built,
    "start": start,
    "delivery": delivery,
    "append": append,
    "memory": memory,
    "idle": idle,
    "flask": flask,
    "gunicorn-flask": partial(served, framework="flask"),
    "gunicorn-django": partial(served, framework="django"),
    "steady-1": partial(threads, count=1, is_steady=True),
    "steady-8": partial(threads, count=8, is_steady=True),
    "steady-64": partial(threads, count=64, is_steady=True),
    "storm-8": partial(threads, count=8, is_steady=False),
    "storm-64": partial(threads, count=64, is_steady=False),
}
