"""A shared spool, and the `guardagent` command as a process that works on it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import attrs

from guardagent import AgentConfig
from guardagent._clock import SYSTEM_CLOCK
from guardagent.spool.address import open_store
from guardagent.spool.store import Store

__all__ = ["KEY", "PATIENCE", "Relay", "SharedSpool"]

KEY = "test-key-0123456789"
PATIENCE = 30.0


@attrs.frozen
class SharedSpool:
    url: str
    project: str

    @property
    def environ(self) -> dict[str, str]:
        return {
            "GUARDAGENT_SPOOL": self.url,
            "GUARDAGENT_PROJECT_ID": self.project,
            "GUARDAGENT_API_KEY": KEY,
            "GUARDAGENT_SPOOL_LEASE": "0.5",
            "GUARDAGENT_FLUSH_INTERVAL": "0.05",
            "GUARDAGENT_RETRY_ATTEMPTS": "0",
            "GUARDAGENT_BACKOFF_FACTOR": "0.01",
            "GUARDAGENT_STATUS_INTERVAL": "86400",
        }

    @contextlib.contextmanager
    def store(self) -> Iterator[Store]:
        config = AgentConfig(api_key=KEY, project_id=self.project, spool=self.url, spool_lease=0.5)
        with contextlib.closing(open_store(config, SYSTEM_CLOCK)) as store:
            yield store

    @property
    def pending(self) -> int:
        with self.store() as store:
            return store.depth().records


class Relay:
    """`guardagent relay` as a process; its output is read as it comes."""

    def __init__(self, spool: SharedSpool, endpoint: str, *arguments: str, **environ: str) -> None:
        command = [sys.executable, "-W", "error", "-m", "guardagent", "relay"]
        self._process = subprocess.Popen(
            [*command, "--endpoint", endpoint, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **spool.environ, **environ},
        )
        self.lines: queue.Queue[str] = queue.Queue()
        self.complaints: queue.Queue[str] = queue.Queue()
        self._readers = [
            threading.Thread(target=self._read, args=pair)
            for pair in (
                (self._process.stdout, self.lines),
                (self._process.stderr, self.complaints),
            )
        ]
        for reader in self._readers:
            reader.start()

    def reading(self) -> dict[str, Any]:
        """Wait for the next JSON line."""
        reading: dict[str, Any] = json.loads(self.lines.get(timeout=PATIENCE))
        return reading

    def complaint(self, text: str) -> str:
        """Wait for a line with this text on the standard error."""
        while text not in (line := self.complaints.get(timeout=PATIENCE)):
            pass
        return line

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end; returns the status."""
        status = self._process.wait(PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)
        return status

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """End it; returns the status and what it said on the standard error."""
        self.send(number)
        status = self.wait()
        return status, "".join(self.complaints.queue)

    def close(self) -> None:
        """Let nothing of it stay behind."""
        if self._process.poll() is None:
            self._process.kill()
        self.wait()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()

    @staticmethod
    def _read(stream: Any, lines: queue.Queue[str]) -> None:
        for line in stream:
            lines.put(line)
