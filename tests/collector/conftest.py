"""A store, and collectors that serve it over loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from guardagent.collector import Collector, CollectorServer, Store
from tests.collector.parts import Client

Serve = Callable[..., Client]
Start = Callable[..., CollectorServer]


@pytest.fixture
def store() -> Iterator[Store]:
    """A temporary store."""
    with Store() as store:
        yield store


@pytest.fixture
def serve(store: Store) -> Iterator[Serve]:
    """Serve a collector with the given settings and return a client of it."""
    with ExitStack() as stack:

        def start(**settings: Any) -> Client:
            app = Collector(store, **settings)
            server = stack.enter_context(CollectorServer(app=app, timeout=5.0))
            return stack.enter_context(Client(server))

        yield start


@pytest.fixture
def client(serve: Serve) -> Client:
    """A client of a collector with no settings."""
    return serve()


@pytest.fixture
def start(store: Store) -> Iterator[Start]:
    """Start servers of a collector, or of another application; all are stopped at the end."""
    with ExitStack() as stack:

        def build(*, app: Any = None, max_body_bytes: int = 100_000, **settings: Any) -> Any:
            application = app or Collector(store, max_body_bytes=max_body_bytes)
            server = CollectorServer(app=application, **{"timeout": 5.0, **settings})
            return stack.enter_context(server)

        yield build
