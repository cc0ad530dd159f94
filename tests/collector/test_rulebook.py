"""The rules document."""

from __future__ import annotations

import json
import os
import threading
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest

from guardagent.collector.answers import Refused
from guardagent.collector.rulebook import MAX_RULES_BYTES, Rulebook, unknown_keys
from guardagent.testing import ManualClock

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
        (
            '{"ttl": "soon"}',
            "rules document: ttl: given 'soon' (str), allowed: a whole number",
        ),
        (
            " " * (MAX_RULES_BYTES + 1),
            f"rules document: larger than the {MAX_RULES_BYTES} bytes that agents read",
        ),
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


# Modification times


@pytest.mark.parametrize(
    ("since", "status"),
    [
        *((-1, 200), (0, 304), (1, 304), ("rubbish", 200), ("", 200)),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", 200),
        ("Mon, 01 Jan 2024 99999999999999999999:00:00 GMT", 200),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 200),
    ],
)
def test_who_has_it_since_then_gets_no_body(tmp_path: Path, since: Any, status: int) -> None:
    """If-Modified-Since is understood to the second, and left alone where it is none."""
    path = tmp_path / "rules.json"
    path.write_text("{}")
    os.utime(path, (1_700_000_000.7, 1_700_000_000.7))
    asked = since if isinstance(since, str) else formatdate(1_700_000_000 + since, usegmt=True)

    answer = Rulebook(path).answer("", asked)

    assert answer.status == status
    assert dict(answer.headers)["Last-Modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"


def test_a_tag_beats_the_time() -> None:
    """Two edits within a second have the same time, and other tags (RFC 9110, 13.2.2)."""
    book = Rulebook()

    assert book.answer('"another"', dict(book.answer().headers)["Last-Modified"]).status == 200


# Changes


def _stamps(book: Rulebook) -> tuple[str, int]:
    document = json.loads(book.answer().body)
    return document["rule_id"], document["version"]


def test_each_change_has_the_next_version() -> None:
    """Unless it brings a higher one, or is of another rule."""
    book = Rulebook()
    given = [
        {"rule_id": "a"},
        {"rule_id": "a", "ttl": 5},
        {"rule_id": "a", "ttl": 6, "version": 1},
        {"rule_id": "a", "ttl": 6, "version": "9"},
        {"rule_id": "b", "ttl": 6},
        {},
    ]
    found = []
    for document in given:
        assert book.replace(document).is_new
        found.append(_stamps(book))

    assert found == [("a", 1), ("a", 2), ("a", 3), ("a", 9), ("b", 1), ("default-rule", 1)]


def test_what_differs_in_nothing_is_no_change() -> None:
    """The version, the time and the tag stay."""
    book = Rulebook(clock=ManualClock())
    book.replace({"rule_id": "a", "ttl": 5})
    before = book.read()

    again = book.replace({"ttl": 5, "rule_id": "a", "timestamp": "2026-01-01", "version": 1})

    assert not again.is_new
    assert book.read() == before


def test_a_change_has_its_time() -> None:
    """In the document, and as its Last-Modified."""
    clock = ManualClock()
    book = Rulebook(clock=clock)
    clock.advance(3_600.0)

    edition = book.replace({"ttl": 5})

    assert edition.rules.timestamp.timestamp() == pytest.approx(clock.now())
    assert edition.modified_at == clock.now()


@pytest.mark.parametrize("document", [[], None, "x", {"ttl": []}, {"ip_blacklist": ["nowhere"]}])
def test_a_bad_change_is_refused(document: Any) -> None:
    """Nothing that agents would refuse is ever handed out."""
    book = Rulebook()
    book.replace({"rule_id": "a"})

    with pytest.raises(Refused) as caught:
        book.replace(document)

    assert caught.value.status == 422
    assert caught.value.errors[0].startswith("rules document: ")
    assert _stamps(book) == ("a", 1)


def test_a_change_can_ask_for_what_it_replaces() -> None:
    """Who edited another document does not overwrite this one."""
    book = Rulebook()
    first = book.replace({"rule_id": "a"})
    second = book.replace({"rule_id": "a", "ttl": 5}, if_match=first.tag)

    with pytest.raises(Refused) as caught:
        book.replace({"rule_id": "a", "ttl": 6}, if_match=first.tag)

    assert caught.value.status == 412
    assert book.read().tag == second.tag


def test_of_changes_at_once_none_is_lost() -> None:
    """Each of many threads gets a version of its own."""
    book = Rulebook()
    versions: list[int] = []

    def change(number: int) -> None:
        versions.append(book.replace({"ttl": number}).rules.version)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(1, 21)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(versions) == [*range(1, 21)]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """What it leads to is written."""
    (tmp_path / "real.json").write_text("{}")
    link = tmp_path / "link.json"
    link.symlink_to("real.json")

    Rulebook(link).replace({"ttl": 5})

    assert link.is_symlink()
    assert json.loads((tmp_path / "real.json").read_text())["ttl"] == 5


def test_a_change_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    """And leaves nothing behind."""
    path = tmp_path / "rules.json"
    path.mkdir()
    (path / "x").touch()

    with pytest.raises(Refused, match="cannot be written") as caught:
        Rulebook(path).replace({"ttl": 5})

    assert caught.value.status == 500
    assert [one.name for one in tmp_path.iterdir() if "rules" in one.name] == ["rules.json"]


def test_a_change_that_agents_would_not_read_is_refused() -> None:
    """For its size, as it would be handed out."""
    with pytest.raises(Refused) as caught:
        Rulebook().replace({"message": "x" * MAX_RULES_BYTES})

    assert caught.value.status == 413


def test_names_that_agents_do_not_know_are_found() -> None:
    """With the one that was probably meant."""
    assert unknown_keys({"ttl": 1, "ip_blacklits": [], "zzz": 1}) == [
        "ip_blacklits (did you mean ip_blacklist?)",
        "zzz",
    ]
