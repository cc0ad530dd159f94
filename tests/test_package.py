"""The distribution: what is in it, what it needs, and one version for all."""

from __future__ import annotations

import configparser
import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import guardagent
from guardagent import SecurityEvent
from tests.conftest import MakeAgent
from tests.support.backend import Backend

CHECKOUT = Path(__file__).resolve().parents[1]
INSTALLED = Path(guardagent.__file__).parent
REQUIRED = {"attrs", "cattrs", "redis", "requests", "urllib3"}
TOX_ENV = os.environ.get("GUARDAGENT_TOX_ENV", "")


def requirements() -> dict[str, str]:
    """Every requirement of the installed distribution, extras included, with its lower bound."""
    lines = importlib.metadata.requires("guardagent") or []
    found = (re.match(r"([a-z0-9-]+)>=([0-9.]+)", line) for line in lines)
    return {match[1]: match[2] for match in found if match}


def modules_under(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*.py")}


def public_modules() -> list[str]:
    paths = [Path("guardagent", path).with_suffix("") for path in modules_under(INSTALLED)]
    names = [".".join(path.parts).removesuffix(".__init__") for path in paths]
    return sorted(name for name in names if "._" not in name)


#: Each of these imports a framework, which is not installed everywhere.
CONTRIB = [name for name in public_modules() if ".contrib." in name]


def defined_in(module: ModuleType) -> set[str]:
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }


def test_one_version_for_all(backend: Backend, make_agent: MakeAgent) -> None:
    """The metadata, the package, the User-Agent and the payload tell the same version."""
    agent = make_agent()

    agent.capture(SecurityEvent(event_type="ip_banned"))
    assert agent.flush()

    (request,) = backend.requests
    assert importlib.metadata.version("guardagent") == guardagent.__version__
    assert request.headers["user-agent"] == f"guardagent/{guardagent.__version__}"
    assert request.document["agent_version"] == guardagent.__version__


def test_changelog_knows_the_version() -> None:
    """The changelog has a dated entry for the version."""
    changelog = (CHECKOUT / "CHANGELOG.rst").read_text(encoding="utf-8")

    heading = rf"^{re.escape(guardagent.__version__)} - \d{{4}}-\d\d-\d\d$"

    assert re.search(heading, changelog, re.MULTILINE)


@pytest.mark.skipif(not TOX_ENV, reason="outside tox the package may be the checkout")
def test_tests_meet_the_installed_package() -> None:
    """Under tox the package comes out of site-packages, in a child process as well."""
    program = "import guardagent; print(guardagent.__file__)"
    child = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert "site-packages" in INSTALLED.parts
    assert Path(child.stdout.strip()).parent == INSTALLED


def test_nothing_is_missing_from_the_wheel() -> None:
    """The installed package holds the checkout's modules, no fewer and no others."""
    installed, written = modules_under(INSTALLED), modules_under(CHECKOUT / "guardagent")

    assert installed == written, "a module more may come from an old build/ folder: remove it"


def test_types_are_shipped() -> None:
    """The marker that tells type checkers to read the package's annotations is installed."""
    assert (INSTALLED / "py.typed").is_file()


def test_import_loads_no_client_libraries() -> None:
    """Importing the package loads neither requests nor redis, nor anything of the extras."""
    heavy = {"click", "flask", "redis", "requests", "rich", "urllib3"}
    program = "import sys, guardagent; print(*sys.modules)"
    child = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )

    loaded = set(child.stdout.split())

    assert "guardagent" in loaded
    assert loaded & heavy == set()


@pytest.mark.parametrize("name", sorted({*public_modules()} - {*CONTRIB}))
def test_public_names_are_declared(name: str) -> None:
    """A public module lists its public names in `__all__`, and only names that it has."""
    look_for_names(importlib.import_module(name))


def look_for_names(module: ModuleType) -> None:
    declared = getattr(module, "__all__", [])  # a folder of modules may have no names at all

    assert defined_in(module) <= set(declared)
    assert not [name for name in declared if not hasattr(module, name)]
    assert len(declared) == len(set(declared))


def test_five_requirements() -> None:
    """A plain installation brings five libraries."""
    lines = importlib.metadata.requires("guardagent") or []

    required = {re.split(r"[^a-z0-9-]", line)[0] for line in lines if "extra ==" not in line}

    assert required == REQUIRED


def test_lowest_versions_are_those_allowed() -> None:
    """The "lowest" environment pins each library to the lower bound of the metadata."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(CHECKOUT / "tox.ini", encoding="utf-8")
    pins = dict(
        re.findall(r"^([a-z0-9-]+)==([0-9.]+)", tox["testenv:lowest"]["deps"], re.MULTILINE)
    )

    assert pins.keys() >= REQUIRED
    assert pins == {name: requirements()[name] for name in pins}


@pytest.mark.skipif(TOX_ENV != "lowest", reason="for the environment of the lowest versions")
@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_lowest_versions_are_installed(name: str) -> None:
    """In the "lowest" environment nothing has been upgraded behind its back."""
    assert importlib.metadata.version(name) == requirements()[name]


@pytest.mark.parametrize("group", ["console_scripts", "pytest11"])
def test_entry_points_load(group: str) -> None:
    """The command and the pytest plugin are where the metadata says."""
    found = importlib.metadata.distribution("guardagent").entry_points.select(group=group)

    (entry,) = found

    assert entry.name == "guardagent"
    assert entry.load() is not None
