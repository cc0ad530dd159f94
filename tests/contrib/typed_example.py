"""An application of a user who has types checked; never run, `mypy --strict` reads it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

import structlog
from django.http import HttpRequest, HttpResponse
from fastapi import FastAPI
from flask import Flask
from prometheus_client import REGISTRY
from starlette.applications import Starlette
from starlette.middleware import Middleware

from guardagent import Agent, AgentConfig, SecurityEvent
from guardagent.contrib import guard
from guardagent.contrib.asgi import GuardAgentMiddleware as AsgiMiddleware
from guardagent.contrib.django.middleware import GuardAgentMiddleware as DjangoMiddleware
from guardagent.contrib.flask import GuardAgent
from guardagent.contrib.guard import GuardAgentHandler as DropIn
from guardagent.contrib.guard import guard_agent
from guardagent.contrib.logging import GuardAgentHandler
from guardagent.contrib.prometheus import AgentCollector
from guardagent.contrib.structlog import GuardAgentProcessor
from guardagent.contrib.wsgi import GuardAgentMiddleware as WsgiMiddleware

agent = Agent(AgentConfig(api_key="your-api-key", endpoint="http://127.0.0.1:8765"))

flask_app = Flask("shop")
extension = GuardAgent(flask_app, agent=agent, trusted_proxies=1)
later: Agent | None = extension.agent
flask_app.wsgi_app = WsgiMiddleware(flask_app.wsgi_app, agent=agent)  # type: ignore[method-assign]


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b""]


wsgi_app = WsgiMiddleware(application, agent=agent, capture_statuses=[403])

api = FastAPI()
api.add_middleware(AsgiMiddleware, agent=agent, enforce_rules=True)
pages = Starlette(middleware=[Middleware(AsgiMiddleware, agent=agent)])
wrapped = AsgiMiddleware(api, agent=agent)


def view(_request: HttpRequest) -> HttpResponse:
    return HttpResponse("Welcome.")


django_view = DjangoMiddleware(view)


def lockouts(record: logging.LogRecord) -> SecurityEvent | None:
    if record.levelno < logging.ERROR:
        return None
    return SecurityEvent(event_type="access_denied", reason=record.getMessage())


handler: logging.Handler = GuardAgentHandler(logging.ERROR, agent=agent, to_event=lockouts)
structlog.configure(processors=[GuardAgentProcessor("WARNING", agent=agent)])
REGISTRY.register(AgentCollector(agent))

guard.install(shutdown_timeout=10)


async def main() -> bool:
    one: DropIn = guard_agent(AgentConfig(api_key="your-api-key"))
    await one.start()
    taken: bool = await one.send_event(SecurityEvent(event_type="login_failed"))
    sent, flushed = await asyncio.gather(
        asyncio.create_task(one.send_event({"event_type": "ip_banned"})), one.flush_buffer()
    )
    return taken and sent and flushed and await one.stop()
