"""The Django middleware, for synchronous and asynchronous applications."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from guardagent.contrib._enforce import Refusal
from guardagent.contrib.django import site

__all__ = ["GuardAgentMiddleware"]

_GetResponse = Callable[[HttpRequest], Any]


class GuardAgentMiddleware:
    """Reports answers with a status to capture, measures all, and enforces the rules if told to.

    Responses, streaming ones too, and exceptions pass unchanged. What is measured is the time until
    the response is there.

    Raises:
        ConfigError: `settings.GUARDAGENT` is wrong.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: _GetResponse) -> None:
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
        site.current()

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Serve a request."""
        if self._is_async:
            return self._serve_async(request)
        here = site.current()
        began = monotonic()
        response: HttpResponseBase | None = _refuse(here, request)
        if response is None:
            try:
                response = self._get_response(request)
            except BaseException:
                _measure(here, request, 0, monotonic() - began)
                raise
        _finish(here, request, response, monotonic() - began)
        return response

    async def _serve_async(self, request: HttpRequest) -> HttpResponseBase:
        here = site.current()
        began = monotonic()
        response: HttpResponseBase | None = await _refuse_async(here, request)
        if response is None:
            try:
                response = await self._get_response(request)
            except BaseException:  # among them the cancellation when the client has left
                _measure(here, request, 0, monotonic() - began)
                raise
        _finish(here, request, response, monotonic() - began)
        return response


def _refuse(here: site.Site, request: HttpRequest) -> HttpResponse | None:
    if here.enforcer is None:
        return None
    return _answer(request, here.enforcer.judge(here.describe(request), _query(request)))


async def _refuse_async(here: site.Site, request: HttpRequest) -> HttpResponse | None:
    if here.enforcer is None:
        return None
    judging = here.enforcer.judge_async(here.describe(request), _query(request))
    return _answer(request, await judging)


def _query(request: HttpRequest) -> str:
    query: str = request.META.get("QUERY_STRING", "")
    return query


def _answer(request: HttpRequest, refusal: Refusal | None) -> HttpResponse | None:
    if refusal is None:
        return None
    site.set_known(request)
    return HttpResponse(refusal.body, status=refusal.status, headers=dict(refusal.headers))


def _measure(here: site.Site, request: HttpRequest, status: int, seconds: float) -> None:
    if here.reporter.measures:
        here.reporter.measure(site.route_of(request), request.method or "", status, seconds)


def _finish(
    here: site.Site, request: HttpRequest, response: HttpResponseBase, seconds: float
) -> None:
    _measure(here, request, response.status_code, seconds)
    here.reporter.answered(
        response.status_code,
        here.describe,
        request,
        seconds=seconds,
        is_known=site.is_known(request),
    )
