"""The names of the integrations; see tests/test_package.py for all others."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module

import pytest

from tests.test_package import CONTRIB, look_for_names

#: Needs settings of Django's.
_OF_DJANGO = [name for name in CONTRIB if ".django." in name]


@pytest.mark.parametrize("name", sorted({*CONTRIB} - {*_OF_DJANGO}))
def test_public_names_are_declared(name: str) -> None:
    """A public module lists its public names in `__all__`, and only names that it has."""
    look_for_names(import_module(name))


def test_public_names_of_django_are_declared() -> None:
    """The same in a process of its own, where Django is set up."""
    program = f"""
import django
from importlib import import_module
from django.conf import settings
settings.configure(INSTALLED_APPS=["guardagent.contrib.django"], GUARDAGENT={{}})
django.setup()
from tests.test_package import look_for_names
for name in {_OF_DJANGO!r}:
    look_for_names(import_module(name))
"""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    child = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False
    )

    assert (child.returncode, child.stderr) == (0, "")
