"""Fixtures of the fault suite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.conftest import quick_settings
from tests.faults.scripts import PROGRAMS, Run
from tests.faults.spools import nurseries, place, shared_redis  # noqa: F401 - fixtures
from tests.support.backend import Backend
from tests.support.programs import Program


@pytest.fixture
def run(backend: Backend) -> Run:
    """Start a script of `programs` against the test's backend."""

    def start(
        name: str,
        *,
        settings: Mapping[str, Any] | None = None,
        environ: Mapping[str, str | None] | None = None,
        flags: tuple[str, ...] = ("-W", "error"),
        measured: bool = True,
        **arguments: Any,
    ) -> Program:
        arguments["settings"] = {**quick_settings(backend.url), **(settings or {})}
        path = PROGRAMS / f"{name}.py"
        return Program(path, arguments, environ=environ, flags=flags, measured=measured)

    return start
