"""What each answer means."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest
from requests.structures import CaseInsensitiveDict

from guardagent.errors import RejectedError, SetupError, TooLargeError, TransientError
from guardagent.transport.answers import ANSWER_BYTES, Answer, inflate, judge
from guardagent.transport.protocol import Receipt

NOW = 1_800_000_000.0


def judged(status: int, body: Any = b"", **headers: str) -> Receipt:
    """Judge an answer; a body that is no bytes is written as JSON."""
    named = CaseInsensitiveDict({name.replace("_", "-"): text for name, text in headers.items()})
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return judge(Answer(status, named, raw), bytes_sent=123, now=NOW)


# -- accepted ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204, 207, 299])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"OK",
        b'{"success": tr',
        b"\xff\xfe",
        b"[" * 100_000,
        {},
        [],
        None,
        1,
        "text",
        {"success": True},
        {"success": None},
        {"errors": []},
        {"errors": None, "success": True},
        {"rejected": []},
    ],
    ids=str,
)
def test_any_2xx_is_acceptance(status: int, body: Any) -> None:
    """Unless its body says otherwise."""
    assert judged(status, body) == Receipt(123)


@pytest.mark.parametrize("field", ["rejected", "errors"])
def test_refused_records_are_named(field: str) -> None:
    """Only those are dropped, each with its reason."""
    entries = [{"idempotency_key": "a", "reason": "old"}, {"idempotency_key": "b"}]

    assert judged(200, {field: entries}).rejected == {"a": "old", "b": ""}


def test_refused_records_do_not_make_it_a_failure() -> None:
    """Even when the answer calls itself unsuccessful because of them."""
    body = {"success": False, "rejected": [{"idempotency_key": "a", "reason": "x" * 999}]}

    assert judged(200, body).rejected == {"a": "x" * 200}


@pytest.mark.parametrize("field", ["rejected", "errors"])
def test_a_record_may_be_refused_for_two_reasons(field: str) -> None:
    """A validator that lists each fault of it names its key twice."""
    entries = [{"idempotency_key": "a", "reason": "old"}, {"idempotency_key": "a", "reason": "big"}]

    assert list(judged(200, {field: entries}).rejected) == ["a"]


@pytest.mark.parametrize(
    "rejected", ["all", {"a": 1}, [1], [{}], [{"idempotency_key": ""}], [{"reason": "x"}]]
)
def test_a_list_that_names_nobody_refuses_nobody(rejected: Any) -> None:
    """What cannot be understood does not cost a record."""
    assert judged(200, {"rejected": rejected}).rejected == {}


@pytest.mark.parametrize(
    "body",
    [
        {"success": False},
        {"success": False, "message": "try later"},
        {"errors": ["bad"]},
        {"errors": "bad"},
        {"errors": [{"idempotency_key": "a"}, "bad"]},
    ],
)
def test_a_2xx_that_failed_may_be_a_hiccup(body: Any) -> None:
    """It is a refusal, but not a final one."""
    with pytest.raises(RejectedError, match="HTTP 200, but not successful") as caught:
        judged(200, body)

    assert (caught.value.status, caught.value.final) == (200, False)


@pytest.mark.parametrize(
    "body",
    [
        b'{"success": false, "filler": "' + b"x" * 99,
        b'<pre>{"rejected" : [ {"idempotency_key"',
        b'{"errors":["bad"',
    ],
    ids=["success", "rejected", "errors"],
)
def test_a_broken_body_that_speaks_of_a_failure(body: bytes) -> None:
    """Nothing is known for certain, so it is no acceptance, and no final refusal either."""
    with pytest.raises(RejectedError, match="speaks of a failure") as caught:
        judged(200, body)

    assert caught.value.final is False


# -- refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 501, 502, 503, 504, 505, 599])
def test_5xx_is_an_outage(status: int) -> None:
    """Trying again may help; it counts for the breaker."""
    with pytest.raises(TransientError) as caught:
        judged(status)

    assert (caught.value.status, caught.value.outage) == (status, True)
    assert caught.value.retry_after is None


@pytest.mark.parametrize("status", [408, 429])
def test_patience_is_no_outage(status: int) -> None:
    """Trying again later helps; it does not count for the breaker."""
    with pytest.raises(TransientError) as caught:
        judged(status, retry_after="9")

    assert (caught.value.status, caught.value.outage) == (status, False)
    assert caught.value.retry_after == 9.0


def test_413_asks_for_halves() -> None:
    """It is its own kind of refusal."""
    with pytest.raises(TooLargeError) as caught:
        judged(413)

    assert caught.value.status == 413


@pytest.mark.parametrize("status", [401, 403, 407, 300, 301, 302, 303, 304, 307, 308, 399])
def test_wrong_settings(status: int) -> None:
    """Key or address are wrong: nothing is lost by it."""
    with pytest.raises(SetupError) as caught:
        judged(status, location="https://elsewhere.example")

    assert caught.value.status == status
    assert "elsewhere" not in str(caught.value)


@pytest.mark.parametrize("status", [400, 402, 404, 405, 409, 410, 422, 451, 499])
def test_other_4xx_are_final(status: int) -> None:
    """The same batch will never be accepted."""
    with pytest.raises(RejectedError) as caught:
        judged(status)

    assert (caught.value.status, caught.value.final) == (status, True)
    assert not isinstance(caught.value, TooLargeError)


@pytest.mark.parametrize("status", [100, 102, 199, 0])
def test_what_is_no_final_answer_is_refused(status: int) -> None:
    """It is at least not taken for acceptance."""
    with pytest.raises(RejectedError):
        judged(status)


# -- reasons -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"detail": "no such project"}, "HTTP 400: no such project"),
        ({"error": {"code": 7}}, 'HTTP 400: {"code": 7}'),
        ({"errors": ["a", "b"], "detail": "c"}, "HTTP 400: a; b"),
        ({"errors": [1], "detail": "c"}, "HTTP 400: [1]"),
        ({"message": "two\nlines\x00"}, "HTTP 400: two lines "),
        ({"reason": "x" * 900}, "HTTP 400: " + "x" * 200),
        ({"other": "x"}, "HTTP 400"),
        (["x"], "HTTP 400"),
        (b"<html>proxy error</html>", "HTTP 400"),
    ],
)
def test_reason_of_a_refusal(body: Any, message: str) -> None:
    """What a JSON answer gives as reason, in one short line; nothing of an HTML page."""
    with pytest.raises(RejectedError) as caught:
        judged(400, body)

    assert str(caught.value) == message


# -- compressed answers --------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", [None, "", "identity", " Identity "])
def test_plain_answers_are_left_alone(encoding: str | None) -> None:
    """Whether or not they say so."""
    assert inflate(b"plain", encoding) == b"plain"


@pytest.mark.parametrize("press", [gzip.compress, zlib.compress])
def test_compressed_answers_are_read(press: Any) -> None:
    """Although nobody asked for them."""
    assert inflate(press(b"answer"), "gzip") == b"answer"


def test_a_bomb_is_not_unfolded() -> None:
    """Beyond the bound nothing is inflated."""
    bomb = gzip.compress(bytes(10_000_000))

    assert len(inflate(bomb, "gzip")) == ANSWER_BYTES
    assert len(inflate(bomb, "gzip", 10)) == 10


@pytest.mark.parametrize(
    "body", [b"", b"not gzip", gzip.compress(b"answer")[:10]], ids=["empty", "foreign", "cut"]
)
def test_what_cannot_be_read_is_empty(body: bytes) -> None:
    """It says nothing; the status counts."""
    assert inflate(body, "gzip") == b""


def test_plain_keys_are_refused_records_too() -> None:
    """A backend may list keys without reasons."""
    key = "457dd84b-183e-4c26-9b40-1dc3b7bba90f"
    body = json.dumps({"success": True, "rejected": [key]}).encode()

    receipt = judge(Answer(200, {}, body), bytes_sent=1, now=0.0)

    assert dict(receipt.rejected) == {key: ""}
    assert not receipt.is_doubtful


def test_a_failure_that_names_records_is_doubtful() -> None:
    """Whether it names any of the batch, only delivery can tell."""
    body = b'{"success": false, "rejected": [{"idempotency_key": "other"}]}'

    assert judge(Answer(200, {}, body), bytes_sent=1, now=0.0).is_doubtful
