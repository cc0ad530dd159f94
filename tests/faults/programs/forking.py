"""Captures, forks children that capture too, and reports who captured what."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import traceback

from parts import ARGUMENTS, books, build, capture, heard, report

how = ARGUMENTS["how"]
children = ARGUMENTS.get("children", 3)
count = ARGUMENTS.get("count", 10)


def fork() -> int:
    """Fork as `os.fork` does, or as uWSGI does: in C, where no hook of Python runs."""
    if how.startswith("raw"):
        # Without the hooks the interpreter's own lock is left as it was, and a child hangs when a
        # thread was waiting for it: so let the agent's threads fall asleep first.
        while agent.stats().spool_bytes == 0:
            threading.Event().wait(0.05)
        threading.Event().wait(0.3)
        return int(ctypes.PyDLL(None).fork())
    return os.fork()


def child(generation: int) -> None:
    signal.alarm(30)  # a child that hangs dies of it, and is missed by the test
    if how == "idle":
        return
    started = agent.stats().captured
    keys = capture(agent, count)
    if how == "grandchildren" and generation == 0:
        breed(1)
    flushed = agent.flush(timeout=15.0)
    more = capture(agent, count)
    report(captured=keys + more, child=os.getpid(), before=started, flushed=flushed)
    if how == "stopping":
        report(stopped=agent.stop(timeout=15.0), child=os.getpid(), **books(agent))


def breed(generation: int) -> None:
    """Fork the children one after the other and wait for all."""
    pids = []
    for _ in range(children):
        pid = fork()
        if pid == 0:
            leave = _leave_by(how)
            try:
                child(generation)
            except SystemExit:
                raise  # the end of a grandchild
            except BaseException:
                traceback.print_exc()
                os._exit(70)
            leave()
            raise AssertionError("a child went on")
        pids.append(pid)
    for pid in pids:
        _, status = os.waitpid(pid, 0)
        report(status=os.waitstatus_to_exitcode(status))


def _leave_by(how: str) -> object:
    if how == "raw_exit":
        return lambda: (agent.flush(timeout=15.0), os._exit(0))
    return lambda: sys.exit(0)


agent = build()
parent = capture(agent, ARGUMENTS.get("parent", count))
if how == "unstarted":
    # Configured, and forked before anything was captured: the case of every preloading server.
    breed(0)
elif how == "in_request":
    report(ready=True)
    heard()  # the test holds the parent's request by now
    breed(0)
    report(children="done")
elif how == "stopped":
    report(stopped=agent.stop(timeout=10.0))
    breed(0)
elif how == "busy":
    is_over = threading.Event()
    taken: list[str] = []

    def work() -> None:
        while not is_over.wait(0.0005):
            taken.extend(capture(agent, 5))

    workers = [threading.Thread(target=work, daemon=True) for _ in range(3)]
    for worker in workers:
        worker.start()
    breed(0)
    is_over.set()
    for worker in workers:
        worker.join()
    report(captured=taken)
else:
    breed(0)
report(captured=parent, flushed=agent.flush(timeout=15.0), **books(agent))
