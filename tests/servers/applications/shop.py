"""A WSGI and an ASGI application that capture at import, in each request, and at the last moment.

`/slow` is answered only when the test opens the gate, which it does once the server was told to
end: what that request captures is the last thing its process does. `/idle` captures nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import time

from journal import GIVEN, agent, capture, is_gate_open, note

from guardagent.contrib.asgi import GuardAgentMiddleware

capture(3, "import")


def wsgi(environ, start_response):
    """Serve a request of WSGI."""
    if environ["PATH_INFO"] == "/slow":
        note("waiting")
        while not is_gate_open():
            time.sleep(0.01)
    if environ["PATH_INFO"] != "/idle":
        capture(2, environ["PATH_INFO"])
    body = json.dumps({"pid": os.getpid()}).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


async def _asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError  # what an application without a lifespan does
    if scope["path"] == "/slow":
        note("waiting")
        while not is_gate_open():  # noqa: ASYNC110 - it is a file
            await asyncio.sleep(0.01)
    capture(2, scope["path"])
    body = json.dumps({"pid": os.getpid()}).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


asgi = GuardAgentMiddleware(_asgi, agent=agent, capture_metrics=False) if GIVEN["shim"] else _asgi
