"""The rules document."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from guardagent.collector.answers import Refused
from guardagent.collector.rulebook import Rulebook

if TYPE_CHECKING:
    from pathlib import Path


def _refusal(book: Rulebook) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        book.answer()
    (reason,) = caught.value.errors
    return caught.value.status, reason


def test_without_a_file_there_are_no_rules() -> None:
    """The empty document means "no rules"."""
    answer = Rulebook().answer()

    assert (answer.status, answer.body, answer.has_body) == (200, b"{}", True)


def test_a_file_is_handed_out_as_it_is(tmp_path: Path) -> None:
    """The document's own bytes are sent, spacing and all."""
    path = tmp_path / "rules.json"
    path.write_text('{ "rule_id": "r-1",\n "version": 3 }')

    assert Rulebook(path).answer().body == path.read_bytes()


def test_a_changed_file_has_another_tag(tmp_path: Path) -> None:
    """An edit shows at the next request, of the same size and time too."""
    path = tmp_path / "rules.json"
    path.write_text('{"version": 1}')
    first = Rulebook(path).answer()
    times = path.stat()
    path.write_text('{"version": 2}')
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    second = Rulebook(path).answer(dict(first.headers)["ETag"])

    assert (second.status, second.body) == (200, b'{"version": 2}')
    assert dict(first.headers)["ETag"] != dict(second.headers)["ETag"]


@pytest.mark.parametrize("form", ["{0}", "W/{0}", '"other", {0}', "*"])
def test_who_has_it_already_gets_no_body(form: str) -> None:
    """If-None-Match is understood alone, weak, in a list and as a star."""
    tag = dict(Rulebook().answer().headers)["ETag"]

    answer = Rulebook().answer(form.format(tag))

    assert (answer.status, answer.has_body) == (304, False)
    assert dict(answer.headers)["ETag"] == tag


def test_another_tag_gets_the_document() -> None:
    """A tag that is not the document's own changes nothing."""
    assert Rulebook().answer('"0123456789abcdef"').status == 200


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "rules document: not a JSON object"),
        ("null", "rules document: not a JSON object"),
        ("", "rules document: body: not JSON: Expecting value: line 1 column 1 (char 0)"),
        ('{"ttl": NaN}', "rules document: body: not JSON: NaN is not a number that JSON has"),
    ],
)
def test_a_file_without_an_object_is_an_error_of_ours(
    tmp_path: Path, text: str, reason: str
) -> None:
    """A broken document is a 500, on which agents keep the rules they have."""
    path = tmp_path / "rules.json"
    path.write_text(text)

    assert _refusal(Rulebook(path)) == (500, reason)


def test_a_missing_file_is_an_error_of_ours(tmp_path: Path) -> None:
    """A file that is not there is a 500 that does not tell where it should be."""
    assert _refusal(Rulebook(tmp_path / "none.json")) == (
        500,
        "rules document: cannot be read: No such file or directory",
    )
