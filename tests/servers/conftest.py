"""Fixtures of the servers' tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.conftest import quick_settings
from tests.servers.served import Served
from tests.support.backend import Backend

#: Nothing is delivered before the end: what arrives was pending when the server was told to end.
PENDING = {"flush_interval": 600.0, "buffer_size": 5_000}


class Serve(Protocol):
    """Describes a server in front of the test's backend; `settings` go on top of `PENDING`."""

    def __call__(
        self,
        *command: str,
        settings: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        **given: Any,
    ) -> Served: ...


@pytest.fixture
def serve(backend: Backend, tmp_path: Path) -> Serve:
    """Describe a server, to be entered."""

    def describe(
        *command: str,
        settings: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        **given: Any,
    ) -> Served:
        chosen = {**quick_settings(backend.url), **PENDING, **(settings or {})}
        folder = tmp_path / "served"
        folder.mkdir()
        return Served(
            _words(command), {"settings": chosen, "shim": False, **given}, folder, environ
        )

    return describe


def _words(command: Sequence[str]) -> list[str]:
    return [word for word in command if word]
