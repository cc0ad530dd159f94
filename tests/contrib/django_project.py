"""A small Django project: views of every kind, and nothing on disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import django
from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import authenticate
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path, re_path
from django.views.decorators.csrf import csrf_protect

MIDDLEWARE = "guardagent.contrib.django.middleware.GuardAgentMiddleware"


def set_up() -> None:
    """Configure Django once for the process; tests change single settings."""
    if settings.configured:
        return
    settings.configure(
        ALLOWED_HOSTS=["testserver", "shop.example"],
        AUTHENTICATION_BACKENDS=["axes.backends.AxesBackend", f"{__name__}.NobodyGetsIn"],
        AXES_FAILURE_LIMIT=2,
        AXES_HANDLER="axes.handlers.cache.AxesCacheHandler",
        AXES_IPWARE_META_PRECEDENCE_ORDER=["REMOTE_ADDR"],
        CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
        DATABASES={},
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "axes",
            "guardagent.contrib.django",
        ],
        LOGGING={
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"null": {"class": "logging.NullHandler"}},
            # As Django's manual says, for those who do not want to read of it.
            "loggers": {
                "django.security.DisallowedHost": {"handlers": ["null"], "propagate": False}
            },
        },
        MIDDLEWARE=[
            MIDDLEWARE,
            "django.middleware.common.CommonMiddleware",
            "axes.middleware.AxesMiddleware",
        ],
        ROOT_URLCONF=__name__,
        SECRET_KEY="only for tests",
        SILENCED_SYSTEM_CHECKS=["axes.W003"],
        USE_TZ=True,
    )
    django.setup()
    # asgiref keeps one thread for ever; it shall not look as if a test had left it behind.
    asyncio.run(sync_to_async(int)())


class NobodyGetsIn:
    """An authentication backend without a database."""

    def authenticate(self, _request: Any, **_credentials: Any) -> None:
        return None


def home(_request: HttpRequest) -> HttpResponse:
    return HttpResponse("Welcome.")


async def home_async(_request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(0)
    return HttpResponse("Welcome, async.")


def answer(_request: HttpRequest, status: int) -> HttpResponse:
    return HttpResponse("As you wish.", status=status)


def login(request: HttpRequest) -> HttpResponse:
    name = request.POST.get("username", "ann")
    user = authenticate(request, username=name, password="hunter2")
    return HttpResponse("Try again.", status=200 if user is None else 302)


def fail(_request: HttpRequest) -> HttpResponse:
    raise ValueError("the secret is hunter2")


def denied(_request: HttpRequest) -> HttpResponse:
    raise PermissionDenied("not for you")


def suspicious(_request: HttpRequest) -> HttpResponse:
    raise SuspiciousOperation("somebody is up to something")


def stream(_request: HttpRequest) -> StreamingHttpResponse:
    def parts() -> Iterator[str]:
        yield from ("a", "b", "c")

    return StreamingHttpResponse(parts(), status=429)


async def stream_async(_request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        for part in ("a", "b", "c"):
            await asyncio.sleep(0)
            yield part

    return StreamingHttpResponse(parts(), status=429)


#: Set when a client waits for an answer that never comes; a test puts its own loop's event here.
waiting: list[asyncio.Event] = []


async def wait_for_ever(_request: HttpRequest) -> HttpResponse:
    waiting.pop().set()
    await asyncio.Event().wait()
    return HttpResponse()


urlpatterns = [
    path("", home),
    path("async/", home_async),
    path("answers/<int:status>/", answer),
    path("login/", login),
    path("account/fail/", fail),
    path("weather/fail/", fail),
    path("denied/", denied),
    path("suspicious/", suspicious),
    path("protected/", csrf_protect(home)),
    path("stream/", stream),
    path("stream-async/", stream_async),
    path("wait/", wait_for_ever),
    re_path(r"^files/(?P<name>\w+)/$", lambda _request, name: HttpResponse(name, status=403)),
]
