"""The code on the pages of the integrations runs, and delivers what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from guardagent.contrib._options import WebOptions
from tests.support.backend import Backend
from tests.test_docs import ADDRESS, CHECKOUT, code_blocks, run

PAGES = CHECKOUT / "docs" / "integrations"

#: What visits the applications of a page, after its blocks.
VISITORS = {
    "flask": """
client = app.test_client()
answers = [client.get(path).status_code for path in ("/products/5", "/admin")]
assert answers == [200, 403]
""",
    "wsgi": """
from werkzeug.test import Client

for app in (application, falcon_application):
    headers = {"X-Forwarded-For": "6.6.6.6, 203.0.113.9"}
    assert Client(app).get("/orders/5", headers=headers).status_code == 403
""",
    "asgi": """
import asyncio
import httpx

async def visit():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client:
        answers = [await client.get(path) for path in ("/orders/5", "/reports")]
    assert [answer.status_code for answer in answers] == [403, 200]

asyncio.run(visit())
""",
    "logging": "",
    "prometheus": "",
}

#: The types of the events that reach the backend then.
EVENTS = {
    "flask": ["access_denied", "ip_banned"],
    "wsgi": ["access_denied", "access_denied"],
    "asgi": ["access_denied", "path_scan"],
    "logging": ["access_denied", "authentication_failed", "suspicious_request"],
    "prometheus": ["ip_banned"],
}


def events(backend: Backend) -> list[str]:
    bodies = [request.document for request in backend.requests]
    return sorted(event["event_type"] for body in bodies for event in body["events"])


@pytest.mark.slow
@pytest.mark.parametrize("name", EVENTS)
def test_pages_deliver(name: str, backend: Backend, tmp_path: Path) -> None:
    """The blocks of a page run as one program without a word of complaint; its events arrive."""
    blocks = code_blocks(PAGES / f"{name}.rst")
    source = "\n".join([*blocks, VISITORS[name]]).replace(ADDRESS, backend.url)

    ended = run(tmp_path, "page.py", source)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert events(backend) == EVENTS[name]
    assert backend.unreadable == []


PROJECT = """
DEBUG = False
SECRET_KEY = "only for a test"
ROOT_URLCONF = "urls"
USE_TZ = True
"""

VISIT_PROJECT = """
import os

os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
import django

django.setup()
from django.core.management import call_command
from django.test import Client

call_command("check", fail_level="WARNING")
call_command("guardagent", "status")
assert Client().get("/", headers={"x-forwarded-for": "203.0.113.9"}).status_code == 403
"""

URLS = """
from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("", lambda request: HttpResponse(status=403))]
"""


@pytest.mark.slow
def test_django_page_delivers(backend: Backend, tmp_path: Path) -> None:
    """Its settings make a project whose checks find nothing, and which reports."""
    settings, *code = code_blocks(PAGES / "django.rst")
    settings = f"{PROJECT}ALLOWED_HOSTS = ['testserver']\n{settings}".replace(ADDRESS, backend.url)
    (tmp_path / "settings.py").write_text(settings, encoding="utf-8")
    (tmp_path / "urls.py").write_text(URLS, encoding="utf-8")

    ended = run(tmp_path, "page.py", "\n".join([VISIT_PROJECT, *code]))

    assert (ended.returncode, ended.stderr) == (0, "")
    assert "The backend answers." in ended.stdout
    assert events(backend) == ["access_denied", "suspicious_request"]


@pytest.mark.slow
def test_wrong_django_settings_are_a_failed_check(tmp_path: Path) -> None:
    """The project can be loaded with them, so that the check can say what is wrong."""
    settings = f"""{PROJECT}
INSTALLED_APPS = ["guardagent.contrib.django"]
GUARDAGENT = {{"TRUSTED_PROXIES": "many"}}
"""
    (tmp_path / "settings.py").write_text(settings, encoding="utf-8")
    (tmp_path / "urls.py").write_text(URLS, encoding="utf-8")

    ended = run(tmp_path, "page.py", VISIT_PROJECT)

    assert ended.returncode == 1
    assert "(guardagent.E001) trusted_proxies: given 'many' (str)" in ended.stderr


def test_every_option_is_on_the_page() -> None:
    """The page names each option of the web integrations, with its default unless it is long."""
    text = (PAGES / "index.rst").read_text(encoding="utf-8")

    for field in attrs.fields(WebOptions):
        default = f'"{field.default}"' if isinstance(field.default, str) else str(field.default)
        is_long = len(default) > 50
        assert (f"``{field.name}``" if is_long else f"``{field.name}`` = ``{default}``") in text


MISSING = """
import sys

sys.modules[{package!r}] = None
sys.meta_path.insert(0, type("Hidden", (), {{"find_spec": staticmethod(
    lambda name, *_: (_ for _ in ()).throw(ModuleNotFoundError(name=name))
    if name.partition(".")[0] == {package!r} else None)}}))
del sys.modules[{package!r}]
import {module}
"""


@pytest.mark.parametrize(
    ("module", "package", "remedy"),
    [
        ("flask", "flask", "pip install 'guardagent[flask]'"),
        ("django", "django", "pip install 'guardagent[django]'"),
        ("django.middleware", "django", "pip install 'guardagent[django]'"),
        ("prometheus", "prometheus_client", "pip install prometheus-client"),
    ],
)
def test_missing_packages_are_named(module: str, package: str, remedy: str) -> None:
    """Without its framework a module says what to install."""
    source = MISSING.format(package=package, module=f"guardagent.contrib.{module}")

    ended = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=False, timeout=60
    )

    last = ended.stderr.strip().splitlines()[-1]
    assert last.endswith(f"{package} is not installed; run: {remedy}")


def test_frameworks_are_not_imported_by_others() -> None:
    """The middlewares, the handler and the processor need nothing but the package."""
    names = ("wsgi", "asgi", "logging", "structlog")
    modules = ", ".join(f"guardagent.contrib.{name}" for name in names)
    source = (
        f"import sys, {modules}\n"
        "foreign = {'click', 'django', 'flask', 'requests', 'starlette', 'structlog'}\n"
        "found = foreign & set(sys.modules)\n"
        "sys.exit(', '.join(found) or 0)"
    )

    ended = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=False, timeout=60
    )

    assert (ended.returncode, ended.stderr) == (0, "")
