"""Captures in children of multiprocessing, which end without `atexit` before Python 3.13."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

from parts import ARGUMENTS, build, capture, report

import guardagent


def work(number: int, settings: dict[str, object]) -> int:
    """Capture in a child, with the agent that was inherited or with a new one."""
    agent = inherited or guardagent.get_agent() or guardagent.init(**settings)
    report(captured=capture(agent, 5, number=number))
    return os.getpid()


inherited = None

if __name__ == "__main__":
    how = ARGUMENTS["how"]
    settings = ARGUMENTS["settings"]
    if ARGUMENTS.get("inherits"):
        inherited = build()
        report(captured=capture(inherited, 5))
    if how == "subprocesses":
        inherited = build()
        for _ in range(40):
            report(captured=capture(inherited, 5))
            subprocess.run([sys.executable, "-S", "-E", "-c", ""], check=True)
        report(captured=capture(inherited, 5))
    elif how == "pool":
        context = multiprocessing.get_context(ARGUMENTS["method"])
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            report(pids=list(pool.map(work, range(6), [settings] * 6)))
    else:
        context = multiprocessing.get_context(how)
        processes = [context.Process(target=work, args=(n, settings)) for n in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(30.0)
            report(status=process.exitcode)
