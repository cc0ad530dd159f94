"""The shop in Flask, behind flaskapi-guard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Flask, abort, request
from flaskapi_guard import FlaskAPIGuard

from guardagent.demo import pages
from guardagent.demo._guarded.threaded import ThreadedSite

if TYPE_CHECKING:
    from guard_core import SecurityConfig

    from guardagent import AgentConfig
    from guardagent.demo.site import Site

__all__ = ["make_site"]


def make_site(config: AgentConfig) -> Site:
    """Build the site."""
    return ThreadedSite(config, guard_library="flaskapi-guard", make_app=_make_app)


def _make_app(settings: SecurityConfig) -> Flask:
    app = Flask("shop")
    FlaskAPIGuard(app, config=settings)

    @app.get("/")
    def home() -> str:
        return pages.WELCOME

    @app.get("/products/<int:number>")
    def product(number: int) -> dict[str, Any]:
        return pages.product(number)

    @app.get("/search")
    def search() -> dict[str, Any]:
        return pages.results(request.args.get("q", ""))

    @app.get("/files/<path:name>")
    def download(name: str) -> str:
        return pages.download(name)

    @app.post("/login")
    def login() -> str:
        if not pages.is_password(request.form.get("password")):
            abort(401)
        return pages.GREETING

    return app
