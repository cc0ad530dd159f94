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

import attrs

from guardagent.collector.answers import Answer, Refused, accepted, refusal, told
from guardagent.collector.arrivals import Item, Kind, Origin
from guardagent.collector.body import check_signature, parse_json, read_body, write_json
from guardagent.collector.register import Register
from guardagent.collector.rulebook import Rulebook, unknown_keys
from guardagent.collector.sealed import Unsealer
from guardagent.collector.wire import (
    batch_problems,
    envelope_problems,
    sealed_problems,
    status_problems,
)

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
    Beside the backend's addresses it has two of its own: `PUT /api/v1/rules` changes the rules,
    and `GET /api/v1/agents` lists who reported, with what each of them lost.

    Args:
        store: keeps what is accepted, and what was refused for which reason; stays open.
        api_keys: the keys let in; none: everybody is.
        signing_secret: makes `X-Payload-Signature` required of every body.
        encryption_keys: open sealed batches; others are taken as well.
        rules: file with the rules document; none: an empty document, kept in memory.
        max_body_bytes: bound of a request body, before and after gzip.

    Raises:
        ConfigError: an encryption key is of another form, or the extra `crypto` is missing.
    """

    def __init__(
        self,
        store: Store,
        *,
        api_keys: Collection[str] = (),
        signing_secret: str | None = None,
        encryption_keys: Collection[str] = (),
        rules: str | Path | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._store = store
        self._api_keys = [key.encode() for key in api_keys]
        self._secret = signing_secret.encode() if signing_secret else None
        self._unsealer = Unsealer(encryption_keys)
        self._register = Register()
        #: What it hands out, for those who are in the same process.
        self.rulebook = Rulebook(Path(rules) if rules is not None else None)
        self._max_body_bytes = max_body_bytes
        self._routes: dict[str, dict[str, Callable[[WSGIEnvironment], Answer]]] = {
            "/api/v1/events": {"POST": self._take_events},
            "/api/v1/metrics": {"POST": self._take_metrics},
            "/api/v1/events/encrypted": {"POST": self._take_sealed},
            "/api/v1/status": {"POST": self._take_status},
            "/api/v1/rules": {"GET": self._give_rules, "PUT": self._take_rules},
            "/api/v1/agents": {"GET": self._give_agents},
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
        handlers = self._routes[path]
        given = environ["REQUEST_METHOD"]
        if given not in handlers:
            allowed = ", ".join(handlers)
            reason = f"method: given {_shown(given)}, allowed: {allowed}"
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, [reason], {"Allow": allowed})
        self._check_key(environ.get("HTTP_X_API_KEY", ""))
        return handlers[given]

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
        counts = self._store.add(kind, _items(batch[filled], kind, origin.batch_id), origin)
        return accepted(counts.accepted, counts.duplicates)

    def _take_sealed(self, environ: WSGIEnvironment) -> Answer:
        envelope = parse_json(self._body(environ))
        _refuse_if(envelope_problems(envelope))
        payload = parse_json(self._unsealer.open(envelope["encrypted_payload"]))
        _refuse_if(sealed_problems(payload))
        origin = Origin(
            project_id=environ.get("HTTP_X_PROJECT_ID", ""),
            agent=environ.get("HTTP_X_AGENT_INSTALL_ID", ""),
            agent_version=envelope["agent_version"],
            batch_id=envelope["batch_id"],
        )
        items: dict[Kind, list[Item]] = {
            "event": _items(payload["events"], "event", origin.batch_id),
            "metric": _items(payload["metrics"], "metric", origin.batch_id),
        }
        counts = self._store.add_all(items, origin)
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
        return self.rulebook.answer(
            environ.get("HTTP_IF_NONE_MATCH", ""), environ.get("HTTP_IF_MODIFIED_SINCE", "")
        )

    def _take_rules(self, environ: WSGIEnvironment) -> Answer:
        document = parse_json(self._body(environ))
        edition = self.rulebook.replace(document, if_match=environ.get("HTTP_IF_MATCH", ""))
        return told(
            {
                "success": True,
                "changed": edition.is_new,
                "rule_id": edition.rules.rule_id,
                "version": edition.rules.version,
                "ignored": unknown_keys(edition.document),
            },
            edition.headers(),
        )

    def _give_agents(self, _environ: WSGIEnvironment) -> Answer:
        self._register.catch_up(self._store)
        return told({"agents": [attrs.asdict(row) for row in self._register.rows()]})

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


def _items(entries: list[Any], kind: Kind, batch_id: str) -> list[Item]:
    return [_item(entry, index, kind, batch_id) for index, entry in enumerate(entries)]


def _item(entry: Mapping[str, Any], index: int, kind: Kind, batch_id: str) -> Item:
    # A metric without a key gets the one its batch gives it: a batch sent again has the same id.
    key = entry.get("idempotency_key") or f"{batch_id}/{index}"
    return Item(key, entry[f"{kind}_type"], write_json(entry))


def _shown(text: str) -> str:
    return json.dumps(text[:100])
