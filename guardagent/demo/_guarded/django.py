"""The shop in Django, behind djapi-guard."""

from __future__ import annotations

from typing import TYPE_CHECKING

import django
from django.conf import settings as django_settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from guardagent.demo import pages
from guardagent.demo._guarded.threaded import ThreadedSite

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication
    from guard_core import SecurityConfig

    from guardagent import AgentConfig
    from guardagent.demo.site import Site

__all__ = ["make_site"]


def make_site(config: AgentConfig) -> Site:
    """Build the site; once in a process, as Django's settings are those of a process."""
    return ThreadedSite(config, guard_library="djapi-guard", make_app=_make_app)


def _make_app(settings: SecurityConfig) -> WSGIApplication:
    urls = (
        path("", _home),
        path("products/<int:number>", _product),
        path("search", _search),
        path("files/<path:name>", _download),
        path("login", _login),
    )
    django_settings.configure(
        ALLOWED_HOSTS=["127.0.0.1"],
        GUARD_SECURITY_CONFIG=settings,
        LOGGING_CONFIG=None,
        MIDDLEWARE=["djangoapi_guard.DjangoAPIGuard"],
        ROOT_URLCONF=urls,
        SECRET_KEY="none",  # noqa: S106 - the shop signs nothing
    )
    django.setup()
    return get_wsgi_application()


def _home(_request: HttpRequest) -> HttpResponse:
    return HttpResponse(pages.WELCOME)


def _product(_request: HttpRequest, number: int) -> HttpResponse:
    return JsonResponse(pages.product(number))


def _search(request: HttpRequest) -> HttpResponse:
    return JsonResponse(pages.results(request.GET.get("q", "")))


def _download(_request: HttpRequest, name: str) -> HttpResponse:
    return HttpResponse(pages.download(name))


def _login(request: HttpRequest) -> HttpResponse:
    if not pages.is_password(request.POST.get("password")):
        return HttpResponse(status=401)
    return HttpResponse(pages.GREETING)
