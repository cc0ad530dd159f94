"""The shop in Django: ``tests.benchmarks.shop.django:application``."""

from __future__ import annotations

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from .orders import page
from .staff import NO_EVENT, begun, hired, settled

__all__ = ["application", "urlpatterns"]

# Those of a new project that need no database.
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

_subject = hired()


def orders(_request: HttpRequest) -> JsonResponse:
    """Answer with a page of orders, and report an event."""
    _subject.capture(_subject.build())
    return JsonResponse(page())


def begin(_request: HttpRequest) -> HttpResponse:
    """Answer with the CPU seconds that are not to be counted."""
    return HttpResponse(begun(_subject), status=NO_EVENT)


def settle(_request: HttpRequest) -> HttpResponse:
    """Answer with the CPU seconds spent."""
    return HttpResponse(settled(_subject), status=NO_EVENT)


urlpatterns = [path("orders", orders), path("begin", begin), path("settle", settle)]

_joined = _subject.django_settings()
settings.configure(
    SECRET_KEY="bench",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    **{**_joined, "MIDDLEWARE": [*_joined.get("MIDDLEWARE", []), *MIDDLEWARE]},
)
django.setup()
application = get_wsgi_application()
