"""Batches over HTTP: one kept-open requests session per process (WIRE.md 1, 2, 4).

Owns: the session, the headers. In: a batch. Out: a receipt, or an error that says what
to do next. Retries are in `retry`, the meaning of answers in `answers`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3
from requests.structures import CaseInsensitiveDict
from urllib3.util.timeout import Timeout

from guardagent._clock import SYSTEM_CLOCK, Clock
from guardagent._log import say
from guardagent._version import __version__
from guardagent.config import AgentConfig
from guardagent.errors import SetupError, TransientError
from guardagent.spool.protocol import Batch
from guardagent.transport.answers import ANSWER_BYTES, Answer, inflate, judge
from guardagent.transport.connection import DeadlineAdapter
from guardagent.transport.envelope import Envelope
from guardagent.transport.installation import installation_id
from guardagent.transport.protocol import Receipt
from guardagent.transport.retry import DeliveryRetry, Interrupted, brief_cause
from guardagent.transport.sealing import compress, sign
from guardagent.transport.secrets import Secrets, SecretsReader

__all__ = ["HTTPTransport"]

_log = logging.getLogger(__name__)

#: Bytes of the longest answer to a batch or a report that says something.
_SHORT_ANSWER = 4_096


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        # Even with allow_redirects=False requests reads a redirect's whole body, without bound,
        # to prepare the request it is not going to send.
        return None


class HTTPTransport:
    """Delivers to the management backend; used by one thread at a time.

    Args:
        config: address, key, limits.
        pause: waits so many seconds before a retry; False ends the wait because the agent stops.
        on_failure: told what became of a request that will be sent again.
        on_retry: called when it is.
        clock: tells the time.
    """

    def __init__(
        self,
        config: AgentConfig,
        *,
        pause: Callable[[float], bool],
        on_failure: Callable[[str], object] = str,
        on_retry: Callable[[], None] = lambda: None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._config = config
        self._clock = clock
        self._envelope = Envelope(
            project_id=config.project_id,
            guard_version=config.guard_version,
            guard_core_version=config.guard_core_version,
        )
        self._secrets = SecretsReader(config)
        hooks = {
            "pause": pause,
            "now": time.time,
            "on_failure": on_failure,
            "on_retry": on_retry,
        }
        self._patient = DeliveryRetry.of(config.retry_attempts, config.backoff_factor, **hooks)
        self._single = DeliveryRetry.of(0, 0.0, **hooks)
        self._adapter: DeadlineAdapter | None = None
        self._session: requests.Session | None = None
        self._install_id: str | None = None
        self._options: dict[str, Any] = {}
        self._prepared: dict[tuple[str, str], requests.PreparedRequest] = {}

    def send(self, batch: Batch, deadline: float | None = None) -> Receipt:
        """Deliver a batch, or raise why not; see `Transport.send`."""

        def post(secrets: Secrets) -> Receipt:
            path, plain = self._address(batch, secrets)
            body, packing = self._pack(plain, secrets)
            headers = self._headers({**packing, "Idempotency-Key": batch.batch_id})
            # An answer may name every record, with a reason.
            bound = max(ANSWER_BYTES, 512 * len(batch))
            answer = self._exchange("POST", path, body, headers, deadline, bound, secrets)
            return judge(answer, bytes_sent=len(body), now=time.time())

        secrets = self._secrets.read(signs=True, seals=True)
        try:
            return post(secrets)
        except SetupError:
            renewed = self._secrets.read(signs=True, seals=True)
            if renewed == secrets:
                raise
            # One was rotated since this batch read it: ask once more, at once.
            return post(renewed)

    def abort(self) -> None:
        """Break what is open; a `send` in another thread fails soon."""
        adapter = self._adapter
        if adapter is not None:
            for connection in list(adapter.opened):
                connection.abort()

    def close(self) -> None:
        """Close the session; the next `send` opens a new one."""
        session, adapter = self._session, self._adapter
        self._session = self._adapter = None
        if session is not None and adapter is not None:
            session.close()
            # urllib3 closes pooled connections when the pool is collected; whoever keeps a log
            # record or an exception of it keeps them open.
            for connection in list(adapter.opened):
                connection.close()

    def after_fork(self) -> None:
        """Forget the parent's session; close its descriptors without a word to the backend."""
        adapter, self._session, self._adapter = self._adapter, None, None
        if adapter is not None:
            for connection in list(adapter.opened):
                connection.forget()

    def exchange(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        deadline: float | None = None,
        max_bytes: int = ANSWER_BYTES,
    ) -> Answer:
        """Make one request of the protocol and return whatever the backend answers.

        Retries as configured, unless `deadline` (monotonic seconds) is set. A refused key is read
        again, and if it was rotated meanwhile the request is made once more, at once.

        Raises:
            TransientError: there was no answer.
            SetupError: a secret could not be read.
        """

        def ask(secrets: Secrets) -> Answer:
            packed, packing = (None, {}) if body is None else self._pack(body, secrets)
            full = self._headers({**packing, **(headers or {})})
            return self._exchange(method, path, packed, full, deadline, max_bytes, secrets)

        secrets = self._secrets.read(signs=body is not None)
        answer = ask(secrets)
        if answer.status not in (401, 403):
            return answer
        renewed = self._secrets.read(signs=body is not None)
        return answer if renewed == secrets else ask(renewed)

    def _exchange(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        deadline: float | None,
        max_bytes: int,
        secrets: Secrets,
    ) -> Answer:
        config = self._config
        seconds = config.timeout
        if deadline is not None:
            seconds = max(0.05, min(seconds, deadline - self._clock.monotonic()))
        try:
            session = self._open(final=deadline is not None)
            response = session.send(
                self._prepare(
                    session, method, path, body, {**headers, "X-API-Key": secrets.api_key}
                ),
                timeout=Timeout(total=seconds),  # type: ignore[arg-type]
                allow_redirects=False,
                **self._options,
            )
            with response:
                read = self._read(response, max_bytes)
        except Interrupted:
            raise TransientError("interrupted: the agent stops", outage=False) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise TransientError(brief_cause(error)) from error
        return Answer(response.status_code, response.headers, read)

    def _prepare(
        self,
        session: requests.Session,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> requests.PreparedRequest:
        # Parsing the same address for every batch would cost as much as sending it.
        if (method, path) not in self._prepared:
            bare = requests.Request(method, f"{self._config.endpoint}/api/v1/{path}")
            self._prepared[method, path] = session.prepare_request(bare)
        request = self._prepared[method, path].copy()
        request.headers = CaseInsensitiveDict(headers)
        request.body = body
        request.prepare_content_length(body)
        return request

    def _read(self, response: requests.Response, max_bytes: int) -> bytes:
        """Read the answer up to its bounds.

        One that is shorter than it said is an error, whether its sender broke it off or was too
        slow: the acknowledgement is lost, and only sending again makes sure. One that is longer
        than the bound, or has no end, stands by its status and what was read of it.
        """
        raw = response.raw
        if raw.length_remaining is None:
            body = _read_open_end(raw, max_bytes)
        else:
            body = raw.read(max_bytes, decode_content=False)
            if len(body) < max_bytes and raw.length_remaining:
                raise ConnectionResetError("the answer ended within its body")
        return inflate(body, response.headers.get("Content-Encoding"), max_bytes)

    def _address(self, batch: Batch, secrets: Secrets) -> tuple[str, bytes]:
        """Return where a batch goes and its body, sealed when there is a key for it."""
        if secrets.sealer is None:
            return batch.kind, self._envelope.wrap(batch)
        return "events/encrypted", self._envelope.wrap_sealed(batch, secrets.sealer)

    def _headers(self, more: Mapping[str, str] | None) -> dict[str, str]:
        config = self._config
        headers = {
            "User-Agent": f"guardagent/{__version__}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "X-Agent-Install-Id": self._identity(),
        }
        if config.project_id is not None:
            headers["X-Project-ID"] = config.project_id
        return {**headers, **(more or {})}

    def _pack(self, plain: bytes, secrets: Secrets) -> tuple[bytes, dict[str, str]]:
        """Return a body as it is sent, and the headers that say how."""
        config = self._config
        headers = {}
        if secrets.signing is not None:
            headers["X-Payload-Signature"] = sign(secrets.signing, plain)
        if config.compression and len(plain) >= config.compression_threshold:
            pressed = compress(plain)
            if pressed is not None:
                return pressed, {**headers, "Content-Encoding": "gzip"}
        return plain, headers

    def _identity(self) -> str:
        if self._install_id is None:
            self._install_id = installation_id(self._config.install_id)
        return self._install_id

    def _open(self, *, final: bool) -> requests.Session:
        if self._session is None or self._adapter is None:
            self._adapter = DeadlineAdapter(self._patient)
            self._session = _new_session(self._adapter)
            self._options = self._connect_options(self._session)
            self._prepared.clear()
        self._adapter.max_retries = self._single if final else self._patient
        return self._session

    def _connect_options(self, session: requests.Session) -> dict[str, Any]:
        """Combine the settings with the environment's; once, for requests takes 0.3 ms for it."""
        config = self._config
        if not config.verify_tls:
            message = "verify_tls is False: the backend's certificate is not checked."
            say(_log, logging.WARNING, message)
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        proxies = dict(config.proxies) if config.proxies else {}
        verify = config.ca_bundle or config.verify_tls
        return dict(
            session.merge_environment_settings(
                config.endpoint, proxies, True, verify, config.client_cert
            )
        )


def _new_session(adapter: DeadlineAdapter) -> requests.Session:
    session = _Session()
    session.headers.clear()
    # An explicit auth, if only one that does nothing, is what keeps requests from reading .netrc.
    session.auth = lambda request: request
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def _read_open_end(raw: Any, max_bytes: int) -> bytes:
    """Read an answer that does not say how long it is.

    A short one byte by byte, so that none read is lost when the rest does not come; a long one is
    worth nothing without its end.
    """
    body = bytearray()
    try:
        while len(body) < max_bytes:
            size = 1 if len(body) < _SHORT_ANSWER else min(65_536, max_bytes - len(body))
            piece = raw.read(size, decode_content=False)
            if not piece:
                break
            body += piece
    except (urllib3.exceptions.ReadTimeoutError, TimeoutError):
        return bytes(body)  # it may be whole, on a connection that was just left open
    return bytes(body)
