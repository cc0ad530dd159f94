"""What errors of the transport mean, in plain words."""

from __future__ import annotations

import socket
import ssl

import pytest
import requests
import urllib3

from guardagent import AgentConfig
from guardagent.cli.verdict import on_error, on_silence
from guardagent.errors import (
    DeliveryError,
    RejectedError,
    SetupError,
    TooLargeError,
    TransientError,
)

_CONFIG = AgentConfig(api_key="key-0123456789", endpoint="https://guard.example", timeout=7.0)


def _caused(cause: BaseException) -> DeliveryError:
    """Nest an error the way requests and urllib3 do."""
    reason = urllib3.exceptions.ConnectTimeoutError(None, "connection failed")
    reason.__cause__ = cause
    pool = urllib3.HTTPSConnectionPool("guard.example")
    retry = urllib3.exceptions.MaxRetryError(pool, "/", cause if _is_urllib3(cause) else reason)
    pool.close()
    error = TransientError("nested")
    error.__cause__ = requests.ConnectionError(retry)
    return error


def _is_urllib3(cause: BaseException) -> bool:
    return isinstance(cause, urllib3.exceptions.HTTPError)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SetupError("no key", status=None), "the key cannot be used: no key"),
        (SetupError("HTTP 401: the key is refused", status=401), "the key is refused (HTTP 401)"),
        (
            SetupError("HTTP 403: the key is refused: expired", status=403),
            "the key is refused (HTTP 403: expired)",
        ),
        (SetupError("x", status=407), "a proxy wants to know who you are (HTTP 407)"),
        (SetupError("x", status=308), "the address answers with a redirect (HTTP 308)"),
        (RejectedError("HTTP 404", status=404), "there is no Guard backend at this address"),
        (RejectedError("HTTP 405", status=405), "there is no Guard backend at this address"),
        (
            RejectedError("HTTP 422: bad", status=422),
            "the backend rejects the event (HTTP 422: bad",
        ),
        (TooLargeError("x", status=413), "the backend calls one test event too large (HTTP 413)"),
        (TransientError("x", status=503), "the backend is there but fails (HTTP 503)"),
        (
            TransientError("x", status=429, outage=False),
            "the backend asks for patience (HTTP 429)",
        ),
    ],
)
def test_answers_are_told_apart(error: DeliveryError, reason: str) -> None:
    """Each answer has its own words and an advice."""
    verdict = on_error(error, _CONFIG)

    assert verdict.reason.startswith(reason)
    assert verdict.advice.endswith(".")


def test_patience_is_told_in_seconds() -> None:
    """When the backend says how long to wait, so do we."""
    error = TransientError("x", status=429, outage=False, retry_after=12.0)

    assert on_error(error, _CONFIG).advice == "Try again in 12 s."


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (socket.gaierror(-2, "Name unknown"), "the host guard.example is unknown"),
        (ConnectionRefusedError(), "connection refused: nothing listens at guard.example"),
        (TimeoutError(), "no answer from guard.example within 7 s"),
        (
            urllib3.exceptions.ReadTimeoutError(
                urllib3.HTTPSConnectionPool("guard.example"), "/", "slow"
            ),
            "no answer from guard.example within 7 s",
        ),
        (
            urllib3.exceptions.ProxyError("no way", OSError()),
            "the proxy does not take us to guard.example (nested)",
        ),
        (
            urllib3.exceptions.ProtocolError("Connection aborted."),
            "guard.example closed the connection without an answer",
        ),
        (
            urllib3.exceptions.LocationParseError("x"),
            "guard.example cannot be reached (nested)",
        ),
        (
            ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"),
            "no encrypted connection to guard.example comes about",
        ),
    ],
)
def test_the_network_is_told_apart(cause: BaseException, reason: str) -> None:
    """Each way not to be reached has its own words, found however deep it is nested."""
    verdict = on_error(_caused(cause), _CONFIG)

    assert verdict.reason.startswith(reason)
    assert verdict.advice.endswith((".", "?"))


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (10, "The backend needs a new certificate; or the clock of this machine is wrong."),
        (20, "Name the authority that signed it in GUARDAGENT_CA_BUNDLE."),
        (62, "Compare GUARDAGENT_ENDPOINT (or --endpoint) with your backend's address."),
        (None, "Name the authority that signed it in GUARDAGENT_CA_BUNDLE."),
    ],
)
def test_certificates_are_refused_for_reasons(code: int | None, advice: str) -> None:
    """What to do about a certificate depends on what is wrong with it."""
    cause = ssl.SSLCertVerificationError("no good.")
    if code is not None:
        cause.verify_code, cause.verify_message = code, "no good."

    verdict = on_error(_caused(cause), _CONFIG)

    words = "no reason given" if code is None else "no good"
    assert verdict.reason == f"the certificate of guard.example is refused: {words}"
    assert verdict.advice == advice


def test_errors_that_cause_each_other_come_to_an_end() -> None:
    """A circle of causes is walked once."""
    error, other = TransientError("circle"), OSError("other")
    error.__cause__, other.__cause__ = other, error

    assert on_error(error, _CONFIG).reason == "guard.example cannot be reached (circle)"


def test_silence_names_the_wait() -> None:
    """Nothing within the timeout is told with the timeout."""
    assert on_silence(_CONFIG).reason == "no answer from guard.example within 7 s"
