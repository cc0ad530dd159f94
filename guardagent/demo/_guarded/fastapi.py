"""The shop in FastAPI, behind fastapi-guard and in uvicorn."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from guard import SecurityMiddleware

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
    return LoopingSite(config, guard_library="fastapi-guard", serve=_serve)


@asynccontextmanager
async def _serve(settings: SecurityConfig, listener: socket.socket) -> AsyncIterator[None]:
    app = _make_app(settings)
    # The library itself reads X-Forwarded-For; what uvicorn made of it would look like a lie to it.
    config = uvicorn.Config(
        app, access_log=False, lifespan="off", log_config=None, proxy_headers=False
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving


def _make_app(settings: SecurityConfig) -> FastAPI:
    app = FastAPI()
    app.add_middleware(SecurityMiddleware, config=settings)

    @app.get("/")
    async def home() -> str:
        return pages.WELCOME

    @app.get("/products/{number}")
    async def product(number: int) -> dict[str, Any]:
        return pages.product(number)

    @app.get("/search")
    async def search(q: str = "") -> dict[str, Any]:
        return pages.results(q)

    @app.get("/files/{name:path}")
    async def download(name: str) -> str:
        return pages.download(name)

    @app.post("/login")
    async def login(request: Request) -> str:
        # By hand: FastAPI's own forms want one more package.
        form = parse_qs((await request.body()).decode("ascii", "replace"))
        if not pages.is_password(form.get("password", [""])[0]):
            raise HTTPException(401)
        return pages.GREETING

    return app
