"""The metrics of requests, gathered and handed over."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from guardagent import SecurityMetric
from guardagent.contrib._measures import Measures

Found = dict[tuple[str, ...], float]


@pytest.fixture
def captured() -> list[SecurityMetric]:
    return []


def make(
    captured: list[SecurityMetric], expect: Callable[[], bool] = lambda: True, **options: Any
) -> Measures:
    return Measures(captured.append, expect, **{"max_routes": 10, **options})


def found(captured: list[SecurityMetric]) -> Found:
    return {(one.metric_type, *one.tags.values()): one.value for one in captured}


def test_requests_are_added_up(captured: list[SecurityMetric]) -> None:
    """Count and mean time by route, method and status; errors are answers with 5xx, or none."""
    measures = make(captured)

    for status, seconds in ((200, 1.0), (201, 3.0), (500, 0.5), (0, 0.5)):
        measures.record("/a", "GET", status, seconds)
    measures.hand_over()

    assert found(captured) == {
        ("request_count", "/a", "GET", "2xx"): 2,
        ("response_time", "/a", "GET", "2xx"): 2.0,
        ("request_count", "/a", "GET", "5xx"): 1,
        ("response_time", "/a", "GET", "5xx"): 0.5,
        ("request_count", "/a", "GET", "none"): 1,
        ("response_time", "/a", "GET", "none"): 0.5,
        ("error_rate", "/a", "GET"): 0.5,
    }


def test_what_was_handed_over_is_gone(captured: list[SecurityMetric]) -> None:
    """Each request is in one hand-over; an empty one captures nothing."""
    measures = make(captured)
    measures.record("/a", "GET", 200, 0.1)

    measures.hand_over()
    captured.clear()
    measures.hand_over()

    assert captured == []


def test_it_asks_to_be_asked_once(captured: list[SecurityMetric]) -> None:
    """The first request of an interval is told on, not the next ones."""
    told: list[int] = []

    def expect() -> bool:
        told.append(1)
        return True

    measures = make(captured, expect)

    for _ in range(5):
        measures.record("/a", "GET", 200, 0.1)
    measures.hand_over()
    measures.record("/a", "GET", 200, 0.1)

    assert len(told) == 2


def test_it_asks_until_somebody_will_ask(captured: list[SecurityMetric]) -> None:
    """As long as nobody would hand anything over, each request tries again; nothing is lost."""
    answers = [False, False, True]
    measures = make(captured, lambda: answers.pop(0))

    for _ in range(5):
        measures.record("/a", "GET", 200, 0.1)
    measures.hand_over()

    assert answers == []
    assert found(captured)["request_count", "/a", "GET", "2xx"] == 5


def test_labels_are_bounded(captured: list[SecurityMetric]) -> None:
    """However many routes, methods and statuses there are, the labels are few and short."""
    measures = make(captured, max_routes=3)

    for number in range(1_000):
        measures.record(f"/{number}" * 500, f"M{number}", number, 0.1)
        measures.record(None, "GET", 404, 0.1)
    measures.hand_over()

    labels = {(one.tags["endpoint"], one.tags["method"]) for one in captured}
    assert len(labels) == 5
    assert ("(no route)", "GET") in labels
    assert ("(other)", "(other)") in labels
    assert max(len(route) for route, _ in labels) == 200
    assert sum(one.value for one in captured if one.metric_type == "request_count") == 2_000


def test_any_thread_may_record(captured: list[SecurityMetric]) -> None:
    """No request is counted twice, or not at all, while others are handed over."""
    measures = make(captured)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work() -> None:
        for _ in range(2_000):
            measures.record("/a", "GET", 200, 0.1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        measures.hand_over()
    measures.hand_over()
    sys.setswitchinterval(interval)

    counts = [one.value for one in captured if one.metric_type == "request_count"]
    assert sum(counts) == 8_000


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("fork", [os.fork, ctypes.PyDLL(None).fork], ids=["python", "uwsgi"])
@pytest.mark.parametrize("first", ["record", "hand_over"])
def test_a_child_leaves_the_parents_to_it(
    captured: list[SecurityMetric], fork: Callable[[], int], first: str
) -> None:
    """What was gathered before a fork is handed over once, by the parent; hooks or not."""
    measures = make(captured)
    measures.record("/parent", "GET", 200, 0.1)

    child = fork()
    if child == 0:
        expected = set()
        if first == "record":
            measures.record("/child", "GET", 200, 0.1)
            expected = {"/child"}
        measures.hand_over()
        os._exit(0 if {one.tags["endpoint"] for one in captured} == expected else 1)
    measures.hand_over()

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert {one.tags["endpoint"] for one in captured} == {"/parent"}
