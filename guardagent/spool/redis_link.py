"""The way to Redis: runs scripts there, and says SpoolError for whatever goes wrong on it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from guardagent.errors import SpoolError
from guardagent.spool.redis_address import Address
from guardagent.spool.redis_client import Opened, check_client, open_client
from guardagent.spool.redis_scripts import Script

__all__ = ["RedisLink"]

_SHOWN = 160
#: What a child inherited: letting go of it would touch what the parent uses, or wait for a lock
#: that nobody in the child will ever release.
_inherited: list[Any] = []


class RedisLink:
    """Connects with the first call, and again after a failure; thread-safe.

    Args:
        where: an address, or a client of the application's.
        patience: seconds for one connection and for one answer, instead of what `where` says.
    """

    def __init__(self, where: Address | Any, patience: float | None = None) -> None:
        if not isinstance(where, Address):
            check_client(where)
        self._where = where
        self._patience = patience
        self._opening = threading.Lock()  # guards _opened
        self._opened: Opened | None = None
        self._is_well = False

    def __repr__(self) -> str:
        return f"<RedisLink {self._where!r}>"

    @property
    def is_well(self) -> bool:
        """Tell whether the last call was answered."""
        return self._is_well

    def run(self, script: Script, keys: Sequence[bytes], *args: Any) -> Any:
        """Return a script's answer.

        Raises:
            SpoolError: there is none.
        """
        import redis

        try:
            answer = self._run(script, keys, args)
        except redis.ReadOnlyError as error:
            self._forget_connections()  # the next ones lead to the new primary
            raise self._failed(error) from error
        # Not all of redis-py's errors have its root, a wrong option shows itself as a TypeError or
        # a ValueError of whatever function it goes to, and an application's client may raise any.
        except Exception as error:
            raise self._failed(error) from error
        self._is_well = True
        return answer

    def _run(self, script: Script, keys: Sequence[bytes], args: Sequence[Any]) -> Any:
        import redis

        client = self._client()
        try:
            return client.execute_command("EVALSHA", script.digest, len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:  # a new server, or an old one that was restarted
            return client.execute_command("EVAL", script.text, len(keys), *keys, *args)

    def _client(self) -> Any:
        opened = self._opened
        if opened is None:
            made = open_client(self._where, self._patience)
            with self._opening:
                opened = self._opened = self._opened or made
            if opened is not made:
                made[1]()  # another thread was quicker
        return opened[0]

    def _failed(self, error: Exception) -> SpoolError:
        self._is_well = False
        text = str(error).partition("\n")[0]
        if isinstance(error, (TypeError, ValueError)):
            # Only an option's name is quoted: a value may be a password.
            text = text if isinstance(error, TypeError) else "a wrong value in the address"
        if len(text) > _SHOWN:
            text = text[:_SHOWN] + "..."
        return SpoolError(f"Redis: {type(error).__name__}: {text}")

    def _forget_connections(self) -> None:
        opened = self._opened
        pool = getattr(opened[0], "connection_pool", None) if opened else None
        if pool is not None:
            pool.disconnect(inuse_connections=False)

    def close(self) -> None:
        """Let go of the connections; the next call makes new ones."""
        with self._opening:
            opened, self._opened = self._opened, None
            self._is_well = False
        if opened is not None:
            opened[1]()

    def abandon(self) -> None:
        """Leave the connections to the parent of a forked child."""
        _inherited.append((self._opened, self._opening))
        self._opening = threading.Lock()
        self._opened = None
        self._is_well = False
