"""The shop in Flask: ``tests.benchmarks.shop.flask:application``."""

from __future__ import annotations

import flask

from .orders import page
from .staff import NO_EVENT, begun, hired, settled

__all__ = ["application"]

_subject = hired()
application = flask.Flask("shop")
_subject.join_flask(application)


@application.get("/orders")
def orders() -> flask.Response:
    """Answer with a page of orders, and report an event."""
    _subject.capture(_subject.build())
    return flask.jsonify(page())


@application.get("/begin")
def begin() -> tuple[str, int]:
    """Answer with the CPU seconds that are not to be counted."""
    return begun(_subject), NO_EVENT


@application.get("/settle")
def settle() -> tuple[str, int]:
    """Answer with the CPU seconds spent."""
    return settled(_subject), NO_EVENT
