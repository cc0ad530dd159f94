"""What became of the test event, in plain words. Pure."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import attrs
import urllib3

from guardagent.errors import DeliveryError, RejectedError, SetupError, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guardagent import AgentConfig

__all__ = ["Verdict", "on_error", "on_silence"]

_KEY_ADVICE = "Compare GUARDAGENT_API_KEY (or --api-key) with the key your backend shows."
_AUTHORITY_ADVICE = "Name the authority that signed it in GUARDAGENT_CA_BUNDLE."
_ENDPOINT_ADVICE = "Compare GUARDAGENT_ENDPOINT (or --endpoint) with your backend's address."

#: By OpenSSL's X509_V_ERR_ codes: not yet valid, expired, another host, another address.
_CERTIFICATE_ADVICE = {
    9: "Is the clock of this machine right?",
    10: "The backend needs a new certificate; or the clock of this machine is wrong.",
    62: _ENDPOINT_ADVICE,
    64: _ENDPOINT_ADVICE,
}


@attrs.frozen
class Verdict:
    """Why an event was not accepted, and what to look at."""

    reason: str
    advice: str


def on_error(error: DeliveryError, config: AgentConfig) -> Verdict:
    """Say what an error of the transport means."""
    if isinstance(error, SetupError):
        return _setup(error)
    if isinstance(error, RejectedError):
        return _rejected(error)
    if error.status is not None:
        return _busy(error)
    return _network(error, config)


def on_silence(config: AgentConfig) -> Verdict:
    """Say that nothing came back in time."""
    return Verdict(
        f"no answer from {_host(config)} within {config.timeout:g} s",
        "Is a firewall in between? A longer --timeout helps where the backend is slow.",
    )


def _setup(error: SetupError) -> Verdict:
    if error.status is None:
        return Verdict(f"the key cannot be used: {error}", _KEY_ADVICE)
    if error.status in (401, 403):
        return Verdict(f"the key is refused ({_told(error)})", _KEY_ADVICE)
    if error.status == 407:
        advice = "Put user and password into the proxy's address (HTTPS_PROXY, HTTP_PROXY)."
        return Verdict("a proxy wants to know who you are (HTTP 407)", advice)
    return Verdict(
        f"the address answers with a redirect (HTTP {error.status}), which is not followed: "
        "the key would go to somebody else",
        "Give the address it leads to: https instead of http, another host or path.",
    )


def _rejected(error: RejectedError) -> Verdict:
    if error.status in (404, 405):
        return Verdict(f"there is no Guard backend at this address ({error})", _ENDPOINT_ADVICE)
    if error.status == 413:
        return Verdict(
            "the backend calls one test event too large (HTTP 413)",
            "Look at the limits of the backend, or of a proxy in front of it.",
        )
    return Verdict(f"the backend rejects the event ({error})", "Look at the backend's own log.")


def _busy(error: DeliveryError) -> Verdict:
    if isinstance(error, TransientError) and not error.outage:
        later = error.retry_after
        when = f" in {later:.0f} s" if later else " later"
        return Verdict(f"the backend asks for patience (HTTP {error.status})", f"Try again{when}.")
    return Verdict(
        f"the backend is there but fails (HTTP {error.status})",
        "Try again later, or look at the backend's own log.",
    )


def _network(error: DeliveryError, config: AgentConfig) -> Verdict:
    causes = list(_causes(error))
    host = _host(config)

    def has(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    if has(urllib3.exceptions.ProxyError):
        advice = "Look at HTTPS_PROXY and HTTP_PROXY; NO_PROXY names hosts to reach without."
        return Verdict(f"the proxy does not take us to {host} ({error})", advice)
    if has(socket.gaierror, urllib3.exceptions.NameResolutionError):
        return Verdict(f"the host {host} is unknown", _ENDPOINT_ADVICE)
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            return _tls(cause, host)
    return _connection(error, config, has)


def _connection(error: DeliveryError, config: AgentConfig, has: Callable[..., bool]) -> Verdict:
    host = _host(config)
    if has(ConnectionRefusedError):
        advice = f"Is the backend running? {_ENDPOINT_ADVICE}"
        return Verdict(f"connection refused: nothing listens at {host}", advice)
    if has(TimeoutError, urllib3.exceptions.TimeoutError):
        return on_silence(config)
    if has(ConnectionError, urllib3.exceptions.ProtocolError):
        advice = "Is it an HTTP server? It may also want https, or have restarted just now."
        return Verdict(f"{host} closed the connection without an answer", advice)
    return Verdict(f"{host} cannot be reached ({error})", _ENDPOINT_ADVICE)


def _tls(cause: ssl.SSLError, host: str) -> Verdict:
    if isinstance(cause, ssl.SSLCertVerificationError):
        # One that was not made by ssl itself has neither message nor code.
        message = getattr(cause, "verify_message", "no reason given").rstrip(".")
        advice = _CERTIFICATE_ADVICE.get(getattr(cause, "verify_code", 0), _AUTHORITY_ADVICE)
        return Verdict(f"the certificate of {host} is refused: {message}", advice)
    reason = getattr(cause, "reason", None) or "unknown reason"
    return Verdict(
        f"no encrypted connection to {host} comes about ({reason})",
        "Does it speak https at this port?",
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Walk through the errors that requests and urllib3 nest in each other, each once."""
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]


def _told(error: DeliveryError) -> str:
    """Return the status and the backend's own reason, without our "the key is refused"."""
    _, _, reason = str(error).partition("the key is refused: ")
    return f"HTTP {error.status}: {reason}" if reason else f"HTTP {error.status}"


def _host(config: AgentConfig) -> str:
    return urlsplit(config.endpoint).netloc
