"""A Celery application that captures when it is loaded and in each task."""

from __future__ import annotations

from celery import Celery
from journal import GIVEN, capture, is_gate_open, note

app = Celery("jobs", broker=GIVEN["broker"])
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)

capture(3, "import")


@app.task
def work() -> None:
    """Capture."""
    capture(2, "task")


@app.task
def work_late() -> None:
    """Capture once the worker was told to end."""
    import time

    note("waiting")
    while not is_gate_open():
        time.sleep(0.01)
    capture(2, "late")
