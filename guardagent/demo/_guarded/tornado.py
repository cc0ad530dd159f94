"""The shop in Tornado, behind tornadoapi-guard."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tornado.httpserver import HTTPServer
from tornado.web import Application
from tornadoapi_guard import SecurityMiddleware
from tornadoapi_guard.handler import SecurityHandler

from guardagent.demo import pages
from guardagent.demo._guarded.looping import LoopingSite

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

    from guard_core import SecurityConfig

    from guardagent import AgentConfig
    from guardagent.demo.site import Site

__all__ = ["make_site"]


def make_site(config: AgentConfig) -> Site:
    """Build the site."""
    return LoopingSite(config, guard_library="tornadoapi-guard", serve=_serve)


@asynccontextmanager
async def _serve(settings: SecurityConfig, listener: socket.socket) -> AsyncIterator[None]:
    routes = [
        ("/", _Home),
        (r"/products/(\d+)", _Product),
        ("/search", _Search),
        ("/files/(.+)", _Download),
        ("/login", _Login),
    ]
    app = Application(routes, security_middleware=SecurityMiddleware(config=settings))
    server = HTTPServer(app)
    listener.setblocking(False)
    server.add_socket(listener)
    try:
        yield
    finally:
        server.stop()
        await server.close_all_connections()


class _Home(SecurityHandler):
    async def get(self) -> None:
        self.write(pages.WELCOME)


class _Product(SecurityHandler):
    async def get(self, number: str) -> None:
        self.write(pages.product(int(number)))


class _Search(SecurityHandler):
    async def get(self) -> None:
        self.write(pages.results(self.get_query_argument("q", "")))


class _Download(SecurityHandler):
    async def get(self, name: str) -> None:
        self.write(pages.download(name))


class _Login(SecurityHandler):
    async def post(self) -> None:
        if pages.is_password(self.get_body_argument("password", "")):
            self.write(pages.GREETING)
        else:
            self.set_status(401)
