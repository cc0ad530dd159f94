"""The identity of an installation."""

from __future__ import annotations

import os
import stat
import uuid
from pathlib import Path

import pytest

from guardagent.transport import installation
from guardagent.transport.installation import installation_id
from tests.scripted import in_threads


def kept() -> Path:
    return Path.home() / ".guard-agent" / "install-id"


def keep(content: bytes) -> Path:
    kept().parent.mkdir()
    kept().write_bytes(content)
    return kept()


def test_given_identity() -> None:
    """What the settings say is used, and nothing is written."""
    assert installation_id("mine") == "mine"
    assert not kept().parent.exists()


def test_new_identity_is_kept() -> None:
    """A UUID4 that the next start finds again, in a folder nobody else can read."""
    first = installation_id(None)

    assert uuid.UUID(first).version == 4
    assert (kept().read_text(), installation_id(None)) == (first, first)
    assert stat.S_IMODE(kept().parent.stat().st_mode) == 0o700
    assert [path.name for path in kept().parent.iterdir()] == ["install-id"]


def test_identity_of_the_older_agent_is_taken_over() -> None:
    """Whatever it looks like, with or without a line end."""
    keep(b"Host-7.example_1\n")

    assert installation_id(None) == "Host-7.example_1"


@pytest.mark.parametrize(
    "content", [b"", b"two words", b"a\r\nX-Evil: 1", b"\xff\xfe", b"x" * 129, "naïve".encode()]
)
def test_useless_content_is_replaced(content: bytes) -> None:
    """What no header can hold is not sent; the new one stays."""
    path = keep(content)

    fresh = installation_id(None)

    assert uuid.UUID(fresh).version == 4
    assert path.read_text() == fresh


def test_a_huge_file_is_not_taken() -> None:
    """Only its beginning is looked at."""
    keep(b"x" * 1_000_000)

    assert len(installation_id(None)) == 36


def test_home_that_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The identity lives with the process then."""
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("HOME", str(file))

    assert uuid.UUID(installation_id(None)).version == 4


def test_identity_that_is_a_folder() -> None:
    """Something in its place is left alone."""
    kept().mkdir(parents=True)

    assert uuid.UUID(installation_id(None)).version == 4
    assert kept().is_dir()


def test_home_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not made: the identity lives with the process."""
    monkeypatch.setenv("HOME", str(tmp_path / "not" / "there"))

    assert uuid.UUID(installation_id(None)).version == 4
    assert not (tmp_path / "not").exists()


def test_home_that_depends_on_where_we_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative HOME would leave a file in whatever folder the process works in."""
    (tmp_path / "near").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "near")

    assert uuid.UUID(installation_id(None)).version == 4
    assert list((tmp_path / "near").iterdir()) == []


def test_home_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without HOME whose user is in no list still has an identity."""

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(installation.Path, "home", unknown)

    assert uuid.UUID(installation_id(None)).version == 4


def test_eight_starts_at_once_agree() -> None:
    """The first one's identity is everyone's."""
    found = in_threads(8, lambda _: installation_id(None))

    assert len(set(found)) == 1
    assert [path.name for path in kept().parent.iterdir()] == ["install-id"]


def test_another_process_was_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it wrote between our look and our link is taken."""
    link = os.link

    def late(source: Path, target: Path) -> None:
        target.write_text("first-one")
        link(source, target)

    monkeypatch.setattr(installation.os, "link", late)

    assert installation_id(None) == "first-one"


def test_another_process_wrote_nonsense(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the new one is good for this process."""
    link = os.link

    def late(source: Path, target: Path) -> None:
        target.write_text("two words")
        link(source, target)

    monkeypatch.setattr(installation.os, "link", late)

    assert uuid.UUID(installation_id(None)).version == 4
