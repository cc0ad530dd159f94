"""The same small application for each framework, behind its real Guard library.

Settings, the same for every program here: endpoint; replaced (guard-agent, by guardagent); hidden
(guard-agent, as if it were not installed); redis (its address, or nothing).
"""

import sys


class Hidden:
    """Stands in the way of an installed guard-agent."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "guard_agent":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def prepare(given):
    """Set the stage, before anything of a Guard library is imported."""
    if given.get("hidden"):
        sys.meta_path.insert(0, Hidden())
    if given.get("replaced"):
        from guardagent.contrib import guard

        guard.install(**given.get("settings", {}))


def security(given):
    from guard_core import SecurityConfig

    return SecurityConfig(
        enable_agent=True,
        agent_api_key="key-of-the-guard-tests",
        agent_endpoint=given["endpoint"],
        agent_project_id="guards",
        agent_flush_interval=1,
        agent_backoff_factor=0.01,
        enable_dynamic_rules=True,
        enable_redis=given.get("redis") is not None,
        redis_url=given.get("redis"),
        trusted_proxies=["127.0.0.1"],
        blocked_user_agents=["badbot"],
        blacklist=["198.51.100.7"],
        auto_ban_threshold=3,
        rate_limit=1000,
        endpoint_rate_limits={"/limited": (2, 60)},
    )


def make_fastapi(given):
    from fastapi import FastAPI
    from guard import SecurityMiddleware

    app = FastAPI()
    app.add_middleware(SecurityMiddleware, config=security(given))

    @app.get("/")
    @app.get("/limited")
    async def page():
        return {"here": True}

    return app


def make_flask(given):
    from flask import Flask
    from flaskapi_guard import FlaskAPIGuard

    app = Flask("guarded")
    FlaskAPIGuard(app, config=security(given))

    @app.get("/")
    @app.get("/limited")
    def page():
        return {"here": True}

    return app


def make_django(given):
    import django
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import JsonResponse
    from django.urls import path

    def page(_request):
        return JsonResponse({"here": True})

    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1"],
        GUARD_SECURITY_CONFIG=security(given),
        LOGGING_CONFIG=None,
        MIDDLEWARE=["djangoapi_guard.DjangoAPIGuard"],
        ROOT_URLCONF=(path("", page), path("limited", page)),
        SECRET_KEY="none",
    )
    django.setup()
    return get_wsgi_application()


def make_tornado(middleware):
    import tornado.web
    from tornadoapi_guard.handler import SecurityHandler

    class Page(SecurityHandler):
        async def get(self):
            self.write({"here": True})

    pages = [("/", Page), ("/limited", Page)]
    return tornado.web.Application(pages, security_middleware=middleware)
