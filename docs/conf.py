"""Settings of the Sphinx build; warnings are errors (tox -e docs)."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from guardagent import __version__

project = "guardagent"
author = "guardagent contributors"
copyright = "2026, guardagent contributors"
version = release = __version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "settings"]
exclude_patterns = ["_build", "benchmarks-served.rst", "benchmarks-table.rst"]
default_role = "code"
nitpicky = True
# No inventory of the standard library is fetched: building the documentation needs no network.
nitpick_ignore_regex = [
    (r"py:.*", r"(guardagent\._.*|Clock|OnRules|RecordingAgent)"),
    (r"py:.*", r"(collections|datetime|functools|logging|pathlib|threading|types|typing)(\..*)?"),
    (r"py:.*", r"(attrs|cattrs|click|flask|pytest|requests|urllib3)(\..*)?"),
]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
napoleon_numpy_docstring = False
# Types are in annotations only; without this the first words of a Returns section could be one.
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"guardagent {release}"
