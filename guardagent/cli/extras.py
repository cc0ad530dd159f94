"""Says which optional package is missing, instead of a traceback."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from guardagent.errors import GuardAgentError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = ["MissingExtraError", "extra", "needing"]


class MissingExtraError(GuardAgentError):
    """An optional package is not installed; the message says how to install it."""


def extra(name: str, *packages: str) -> AbstractContextManager[None]:
    """Turn a failed import of one of `packages` into an error that names the extra."""
    return needing([f"'guardagent[{name}]'"], packages)


@contextmanager
def needing(requirements: Collection[str], packages: Collection[str]) -> Iterator[None]:
    """Turn a failed import of one of `packages` into an error that names what to install.

    Raises:
        MissingExtraError: one of the packages is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in packages:
            raise  # a fault of ours or of the package's own
        message = f"{package} is not installed; run: pip install {' '.join(requirements)}"
        raise MissingExtraError(message) from error
