"""The real guard-agent, imported where it is installed; without it these tests are skipped."""

from __future__ import annotations

import os
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def guard_agent() -> None:
    """Skip without it; in CI a missing part is an error."""
    if not os.environ.get("CI"):
        pytest.importorskip("guard_agent")


@pytest.fixture(scope="session")
def models(guard_agent: None) -> Any:
    """Its pydantic models, of exactly the version WIRE.md describes."""
    import guard_agent
    from guard_agent import models

    assert guard_agent.__version__ == "3.2.4"
    return models
