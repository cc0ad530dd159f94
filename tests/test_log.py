"""The agent's own log lines."""

from __future__ import annotations

import importlib
import logging
import threading

import pytest

from guardagent import _log as _log_module
from guardagent._log import say
from guardagent._quiet import MUTED

_log = logging.getLogger("guardagent.test")


def test_line_reaches_the_application(caplog: pytest.LogCaptureFixture) -> None:
    """Handlers of the application see the line, its level and the module it came from."""
    say(_log, logging.WARNING, "%d events and %s.", 3, "more")

    assert caplog.record_tuples == [("guardagent.test", logging.WARNING, "3 events and more.")]


def test_line_goes_nowhere_by_default(capfd: pytest.CaptureFixture[str]) -> None:
    """Without a handler of the application's nothing is written to standard error."""
    assert [type(one) for one in logging.getLogger("guardagent").handlers] == [logging.NullHandler]
    assert capfd.readouterr().err == ""


def test_a_handler_that_captures_is_not_heard(caplog: pytest.LogCaptureFixture) -> None:
    """While a line is logged, the thread's captures are refused (FIELD C1)."""
    muted = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            muted.append(threading.get_ident() in MUTED)

    handler = Handler()
    _log.addHandler(handler)
    try:
        say(_log, logging.WARNING, "A line.")
    finally:
        _log.removeHandler(handler)

    assert muted == [True]
    assert threading.get_ident() not in MUTED


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING, logging.ERROR])
def test_a_handler_that_raises_breaks_nothing(level: int) -> None:
    """An application's broken handler costs its own line and nothing else."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("the disk is full")

    handler = Handler()
    _log.addHandler(handler)
    _log.setLevel(logging.DEBUG)
    try:
        say(_log, level, "A line.")
    finally:
        _log.removeHandler(handler)
        _log.setLevel(logging.NOTSET)

    assert threading.get_ident() not in MUTED


def test_handlers_of_the_application_are_kept() -> None:
    """Importing again, as a reload does, adds no second handler."""
    before = list(logging.getLogger("guardagent").handlers)

    importlib.reload(_log_module)

    assert logging.getLogger("guardagent").handlers == before
