"""Django's own server with its reloader: two processes import the project, and one reports."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import quick_settings
from tests.contrib.conftest import requests_in
from tests.support.backend import Backend
from tests.support.ports import free_port

MANAGE = """
import os
import sys

os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
from django.core.management import execute_from_command_line

execute_from_command_line(sys.argv)
"""

SETTINGS = """
DEBUG = True
SECRET_KEY = "only for a test"
ROOT_URLCONF = "urls"
USE_TZ = True
INSTALLED_APPS = [
    "guardagent.contrib.django",
    "django.contrib.auth",
    "django.contrib.contenttypes",
]
MIDDLEWARE = ["guardagent.contrib.django.middleware.GuardAgentMiddleware"]
GUARDAGENT = {settings!r}
"""

URLS = """
import os

from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("", lambda request: HttpResponse(str(os.getpid()), status=403))]
"""

#: Nothing is delivered before the end, but whoever has started an agent says so at once.
PENDING = {"flush_interval": 600.0, "buffer_size": 5_000, "status_interval": 0.05}


@pytest.fixture
def project(backend: Backend, tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    settings = {**quick_settings(backend.url), **PENDING}
    (folder / "manage.py").write_text(MANAGE, encoding="utf-8")
    (folder / "settings.py").write_text(SETTINGS.format(settings=settings), encoding="utf-8")
    (folder / "urls.py").write_text(URLS, encoding="utf-8")
    return folder


@pytest.fixture
def server(project: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server that was asked to serve on a port; its processes are gone after the test."""
    port = free_port()
    # At Ctrl-C the reloader may leave its child, which warns of that.
    flags = ("-W", "error", "-W", "ignore::ResourceWarning")
    command = [sys.executable, *flags, "manage.py", "runserver", f"127.0.0.1:{port}"]
    with (project / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=project, stdout=log, stderr=log, start_new_session=True
        )
    yield process, port
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)  # a session of its own: both processes
    process.wait(60)


def ask(port: int) -> tuple[int, int]:
    """Ask for the page; return the status and the process that answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        return response.status, int(response.read())
    finally:
        connection.close()


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def wait_until(met: Callable[[], object]) -> None:
    for _ in range(600):
        if met():
            return
        threading.Event().wait(0.1)
    raise AssertionError("it never came to this")


@pytest.mark.slow
def test_one_process_reports_each_event_once(
    server: tuple[subprocess.Popen[bytes], int], project: Path, backend: Backend
) -> None:
    """The reloader's child serves and reports, also what is pending at Ctrl-C; not its parent."""
    process, port = server

    wait_until(lambda: is_listening(port))
    answers = [ask(port), ask(port)]
    wait_until(lambda: len(backend.status_requests) > 2)
    os.killpg(process.pid, signal.SIGINT)
    process.wait(60)
    backend.wait_for(2 + 3, timeout=60)  # the child may live a little longer than its parent

    child = answers[0][1]
    assert answers == [(403, child)] * 2
    assert child != process.pid
    bodies = [request.document for request in backend.requests]
    events = [event["event_type"] for body in bodies for event in body["events"]]
    assert events == ["access_denied"] * 2
    assert requests_in([metric for body in bodies for metric in body["metrics"]]) == 2
    assert len(backend.received) == len(backend.keys) == 2 + 3
    assert {request.document["pid"] for request in backend.status_requests} == {child}
    assert "Traceback" not in (project / "log").read_text("utf-8")
