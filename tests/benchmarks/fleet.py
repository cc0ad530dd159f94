"""The figures behind the manual's page "Fleet": ``python -m tests.benchmarks.fleet``."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardagent import Agent, AgentConfig, SecurityEvent
from guardagent._clock import SYSTEM_CLOCK
from guardagent.spool.address import open_store
from tests.support.redis_server import RedisServer

from .sample import nested_fields
from .sink import counted_events, running_sink

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["main"]

_SETTINGS: dict[str, Any] = {"api_key": "bench", "project_id": "bench", "status_interval": 86_400}


def main() -> None:
    """Measure everything and print a line of JSON for each figure."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.fleet", description=__doc__)
    parser.add_argument("--events", type=int, default=200_000, help="how many are spooled")
    count = parser.parse_args().events
    with running_sink() as port:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "spool.db"
            url = f"sqlite:///{path}"
            _fill(url, count)
            _tell("sqlite", bytes_per_record=_size(path) / count)
            _deliver("sqlite", url, port, count)
        with RedisServer(settings={"appendfsync": "everysec"}) as server:
            _redis(server, port, count)


def _redis(server: RedisServer, port: int, count: int) -> None:
    _fill(server.url, 1)  # the scripts and the keys are there already
    before, cpu = _info(server, "used_memory"), _cpu(server)
    _fill(server.url, count)
    _tell(
        "redis",
        bytes_per_record=(_info(server, "used_memory") - before) / count,
        append_server_cpu_us=(_cpu(server) - cpu) / count * 1e6,
    )
    cpu = _cpu(server)
    _deliver("redis", server.url, port, count + 1)
    _tell("redis", deliver_server_cpu_us=(_cpu(server) - cpu) / count * 1e6)
    _single_appends(server)
    _idle(server, port)


def _single_appends(server: RedisServer) -> None:
    """Measure appends of one record each, as many processes with few events make them."""
    config = AgentConfig(spool=server.url, **_SETTINGS)
    with contextlib.closing(open_store(config, SYSTEM_CLOCK)) as store:
        ((kind, _, frame),) = _one(server, store)
        cpu, count = _cpu(server), 20_000
        for _ in range(count):
            store.append({kind: [frame]})
        _tell("redis", single_append_server_cpu_us=(_cpu(server) - cpu) / count * 1e6)
        store.purge()


def _one(server: RedisServer, store: Any) -> Any:
    _fill(server.url, 1)
    return store.waiting(1)


def _idle(server: RedisServer, port: int) -> None:
    """Count connections and commands of an application and of a relay with nothing to do."""
    agent = Agent(AgentConfig(spool=server.url, deliver=False, **_SETTINGS))
    agent.capture(SecurityEvent(**nested_fields()))
    agent.flush()
    time.sleep(2.0)
    _tell("redis application", **_traffic(server))
    agent.stop()
    with _relay(server.url, port):
        time.sleep(3.0)
        _tell("redis relay", **_traffic(server))


def _traffic(server: RedisServer) -> dict[str, float]:
    connections = _info(server, "connected_clients") - 1  # the one that asks
    commands, began = _info(server, "total_commands_processed"), time.monotonic()
    time.sleep(10.0)
    seconds = time.monotonic() - began
    asked = _info(server, "total_commands_processed") - commands - 1
    return {"connections": connections, "idle_commands_per_second": asked / seconds}


def _fill(url: str, count: int) -> None:
    config = AgentConfig(
        spool=url, deliver=False, overflow="block", block_timeout=60.0, **_SETTINGS
    )
    agent = Agent(config)
    for _ in range(count):
        agent.capture(SecurityEvent(**nested_fields()))
    agent.flush(60.0)
    agent.stop(60.0)
    lost = {reason: n for reason, n in agent.stats().dropped.items() if n}
    if lost:
        raise SystemExit(f"lost while spooling: {lost}")


def _deliver(name: str, url: str, port: int, count: int) -> None:
    """Measure how fast one relay empties the spool, and the time of its own it takes for that."""
    before = counted_events(port)
    with _relay(url, port) as process:
        while counted_events(port) == before:
            time.sleep(0.005)
        first, began, cpu = counted_events(port), time.monotonic(), _cpu_of(process.pid)
        while (arrived := counted_events(port)) - before < count:
            time.sleep(0.01)
        seconds, cpu = time.monotonic() - began, _cpu_of(process.pid) - cpu
    _tell(
        f"{name} relay",
        events_per_second=(arrived - first) / seconds,
        relay_cpu_us=cpu / (arrived - first) * 1e6,
    )


@contextlib.contextmanager
def _relay(url: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "guardagent", "relay", "--endpoint"]
    environ = {
        "GUARDAGENT_SPOOL": url,
        "GUARDAGENT_API_KEY": "bench",
        "GUARDAGENT_PROJECT_ID": "bench",
    }
    with subprocess.Popen(
        [*command, f"http://127.0.0.1:{port}"],
        env={**os.environ, **environ},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _cpu(server: RedisServer) -> float:
    return _cpu_of(server.pid)


def _info(server: RedisServer, name: str) -> int:
    return int(server.command("INFO")[name])


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


def _tell(what: str, **figures: float) -> None:
    rounded = {name: round(figure, 2) for name, figure in figures.items()}
    print(json.dumps({"of": what, **rounded}), flush=True)


if __name__ == "__main__":
    main()
