"""The errors: sorted by what the caller can do next, and carried whole to other processes."""

from __future__ import annotations

import copy
import pickle

import pytest

import guardagent
from guardagent import errors
from guardagent.errors import (
    BufferFull,
    ConfigError,
    DeliveryError,
    EncodeError,
    EventError,
    GuardAgentError,
    RejectedError,
    SetupError,
    SpoolError,
    TooLargeError,
    TransientError,
)

ALL = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("error", ALL)
def test_everything_raised_has_one_root(error: type[Exception]) -> None:
    """One except clause catches whatever the package raises."""
    assert issubclass(error, GuardAgentError)


@pytest.mark.parametrize("error", [ConfigError, EventError])
def test_wrong_values_are_value_errors(error: type[Exception]) -> None:
    """A wrong value is also what Python itself calls one."""
    assert issubclass(error, ValueError)


@pytest.mark.parametrize("error", [TransientError, RejectedError, TooLargeError, SetupError])
def test_what_the_backend_refuses_is_a_delivery_error(error: type[Exception]) -> None:
    """Whoever writes a transport has one family to raise from."""
    assert issubclass(error, DeliveryError)


@pytest.mark.parametrize("error", [BufferFull, EncodeError, SpoolError])
def test_what_fails_inside_is_no_delivery_error(error: type[Exception]) -> None:
    """An event that cannot be kept or written is no answer of the backend."""
    assert not issubclass(error, DeliveryError)


def test_too_large_is_a_refusal() -> None:
    """A transport's caller that does not split batches may treat 413 as any other refusal."""
    assert issubclass(TooLargeError, RejectedError)


@pytest.mark.parametrize("name", ["BufferFull", "ConfigError", "EventError", "GuardAgentError"])
def test_applications_find_theirs_at_the_top(name: str) -> None:
    """The errors an application may meet are importable from the package."""
    assert getattr(guardagent, name) is getattr(errors, name)


def test_defaults_of_a_delivery_error() -> None:
    """Without an answer there is no status."""
    error = DeliveryError("refused")

    assert (str(error), error.status) == ("refused", None)


def test_defaults_of_a_transient_error() -> None:
    """An outage is assumed unless the backend asked for patience."""
    error = TransientError("away")

    assert (error.status, error.outage, error.retry_after) == (None, True, None)


def test_defaults_of_a_rejection() -> None:
    """A refusal is final unless it may be a hiccup."""
    error = RejectedError("bad", status=400)

    assert (error.status, error.final) == (400, True)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SetupError("no key", status=401), {"status": 401}),
        (TooLargeError("413", status=413, final=False), {"status": 413, "final": False}),
        (
            TransientError("wait", status=429, outage=False, retry_after=2.5),
            {"status": 429, "outage": False, "retry_after": 2.5},
        ),
    ],
)
def test_errors_cross_process_borders(error: DeliveryError, said: dict[str, object]) -> None:
    """What an error says survives pickling and copying."""
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert {name: getattr(twin, name) for name in said} == said
