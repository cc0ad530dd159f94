"""Says which optional extra is missing, instead of a traceback."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from guardagent.errors import GuardAgentError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MissingExtraError", "extra"]


class MissingExtraError(GuardAgentError):
    """A package of an optional extra is not installed; the message says how to install it."""


@contextmanager
def extra(name: str, *packages: str) -> Iterator[None]:
    """Turn a failed import of one of `packages` into an error that names the extra.

    Raises:
        MissingExtraError: one of the packages is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in packages:
            raise  # a fault of ours or of the package's own
        message = f"{package} is not installed; run: pip install 'guardagent[{name}]'"
        raise MissingExtraError(message) from error
