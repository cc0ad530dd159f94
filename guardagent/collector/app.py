"""The collector itself: a WSGI application that receives the wire protocol (WIRE.md 1)."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import sqlite3
import uuid
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardagent.collector.answers import Answer, Refused, accepted, refusal
from guardagent.collector.arrivals import Item, Kind, Origin
from guardagent.collector.body import check_signature, parse_json, read_body, write_json
from guardagent.collector.rulebook import Rulebook
from guardagent.collector.wire import batch_problems, status_problems

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from guardagent.collector.store import Store

__all__ = ["MAX_BODY_BYTES", "Collector"]

#: Bytes of a request body, before and after gzip; an agent's batch stays far below.
MAX_BODY_BYTES = 16 * 1024 * 1024

_log = logging.getLogger(__name__)


class Collector:
    """Receives events, metrics and status reports, hands out rules, and says why it refuses.

    A request is kept whole or not at all. Any WSGI server may call it, from any number of threads.

    Args:
        store: keeps what is accepted, and what was refused for which reason; stays open.
        api_keys: the keys let in; none: everybody is.
        signing_secret: makes `X-Payload-Signature` required on every POST.
        rules: file with the rules document; none: an empty document.
        max_body_bytes: bound of a request body, before and after gzip.
    """

    def __init__(
        self,
        store: Store,
        *,
        api_keys: Collection[str] = (),
        signing_secret: str | None = None,
        rules: str | Path | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._store = store
        self._api_keys = [key.encode() for key in api_keys]
        self._secret = signing_secret.encode() if signing_secret else None
        self._rulebook = Rulebook(Path(rules) if rules is not None else None)
        self._max_body_bytes = max_body_bytes
        self._routes: dict[str, tuple[str, Callable[[WSGIEnvironment], Answer]]] = {
            "/api/v1/events": ("POST", self._take_events),
            "/api/v1/metrics": ("POST", self._take_metrics),
            "/api/v1/status": ("POST", self._take_status),
            "/api/v1/rules": ("GET", self._give_rules),
        }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        answer = self._answer(environ)
        start_response(answer.status_line, answer.all_headers())
        return [answer.body] if answer.has_body else []

    def _answer(self, environ: WSGIEnvironment) -> Answer:
        try:
            return self._route(environ)(environ)
        except Refused as refused:
            self._note(environ, refused)
            return refusal(refused)
        except sqlite3.Error as error:
            _log.warning("The store failed: %s.", error)
            # 503: nothing was kept, and an agent sends it again.
            reason = f"store: {error}"
            return refusal(Refused(HTTPStatus.SERVICE_UNAVAILABLE, [reason]))

    def _route(self, environ: WSGIEnvironment) -> Callable[[WSGIEnvironment], Answer]:
        path = environ.get("PATH_INFO", "")
        if path not in self._routes:
            reason = f"path: given {_shown(path)}, allowed: {', '.join(self._routes)}"
            raise Refused(HTTPStatus.NOT_FOUND, [reason])
        method, handler = self._routes[path]
        given = environ["REQUEST_METHOD"]
        if given != method:
            reason = f"method: given {_shown(given)}, allowed: {method}"
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, [reason], {"Allow": method})
        self._check_key(environ.get("HTTP_X_API_KEY", ""))
        return handler

    def _check_key(self, given: str) -> None:
        if not self._api_keys:
            return
        key = given.encode("latin-1")
        # Every key is compared, so that the time taken tells nothing.
        if sum(hmac.compare_digest(key, known) for known in self._api_keys) == 0:
            what = "not a known key" if given else "missing"
            raise Refused(HTTPStatus.UNAUTHORIZED, [f"X-API-Key: {what}"])

    def _take_events(self, environ: WSGIEnvironment) -> Answer:
        return self._take_batch(environ, "events", "event")

    def _take_metrics(self, environ: WSGIEnvironment) -> Answer:
        return self._take_batch(environ, "metrics", "metric")

    def _take_batch(self, environ: WSGIEnvironment, filled: str, kind: Kind) -> Answer:
        batch = parse_json(self._body(environ))
        _refuse_if(batch_problems(batch, filled=filled))
        origin = Origin(
            project_id=batch["project_id"],
            agent=environ.get("HTTP_X_AGENT_INSTALL_ID", ""),
            agent_version=batch["agent_version"],
            batch_id=batch["batch_id"],
        )
        items = [
            _item(entry, index, kind, origin.batch_id) for index, entry in enumerate(batch[filled])
        ]
        counts = self._store.add(kind, items, origin)
        return accepted(counts.accepted, counts.duplicates)

    def _take_status(self, environ: WSGIEnvironment) -> Answer:
        raw = self._body(environ)
        report = parse_json(raw)
        _refuse_if(status_problems(report))
        agent = environ.get("HTTP_X_AGENT_INSTALL_ID", "")
        origin = Origin(project_id=environ.get("HTTP_X_PROJECT_ID", ""), agent=agent)
        # A report has no key of its own; one that is sent again has the same bytes.
        key = hashlib.sha256(agent.encode("latin-1") + b"\0" + raw).hexdigest()
        counts = self._store.add(
            "status", [Item(key, report["status"], write_json(report))], origin
        )
        return accepted(counts.accepted, counts.duplicates)

    def _give_rules(self, environ: WSGIEnvironment) -> Answer:
        return self._rulebook.answer(environ.get("HTTP_IF_NONE_MATCH", ""))

    def _body(self, environ: WSGIEnvironment) -> bytes:
        raw = read_body(environ, max_bytes=self._max_body_bytes)
        if self._secret is not None:
            given = environ.get("HTTP_X_PAYLOAD_SIGNATURE", "")
            check_signature(raw, given, secret=self._secret)
        return raw

    def _note(self, environ: WSGIEnvironment, refused: Refused) -> None:
        request = f"{environ['REQUEST_METHOD']} {environ.get('PATH_INFO', '')}"[:200]
        body = {"request": request, "errors": refused.errors}
        item = Item(uuid.uuid4().hex, str(refused.status.value), json.dumps(body))
        origin = Origin(agent=environ.get("HTTP_X_AGENT_INSTALL_ID", "")[:200])
        try:
            self._store.add("refusal", [item], origin)
        except sqlite3.Error as error:
            _log.warning("A refusal was not kept: %s.", error)


def _refuse_if(problems: list[str]) -> None:
    if problems:
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, problems)


def _item(entry: Mapping[str, Any], index: int, kind: Kind, batch_id: str) -> Item:
    # A metric without a key gets the one its batch gives it: a batch sent again has the same id.
    key = entry.get("idempotency_key") or f"{batch_id}/{index}"
    return Item(key, entry[f"{kind}_type"], write_json(entry))


def _shown(text: str) -> str:
    return json.dumps(text[:100])
