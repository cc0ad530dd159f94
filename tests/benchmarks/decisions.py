"""What a decision costs by the size of its rules: ``python -m tests.benchmarks.decisions``.

The yardstick is the obvious way of the standard library, one loop over ``ipaddress`` networks.
"""

from __future__ import annotations

import ipaddress
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

from guardagent import DynamicRules
from guardagent.limits import RateLimiter

__all__ = ["main"]

SIZES = (0, 1_000, 100_000)
CLIENTS = {"IPv4": "250.1.2.3", "IPv6": "2a00::1", "mapped": "::ffff:250.1.2.3", "none": "unknown"}
REQUEST = {
    "path": "/api/v1/items/12345?sort=name&page=2",
    "method": "GET",
    "user_agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36",
    "country": "DE",
}
MORE: dict[str, Any] = {
    "blocked_countries": ["XX", "YY"],
    "blocked_user_agents": ["sqlmap", "nikto", "^curl/"],
    "suspicious_patterns": [r"union\s+select", "<script", r"\.\./", "etc/passwd", r"\$\{jndi:"],
}


def main() -> None:
    """Print the figures, the best of five."""
    for size in SIZES:
        document = {"ip_blacklist": list(_networks(size))}
        rules, reading = _timed(DynamicRules.from_mapping, document)
        _, compiling = _timed(lambda rules=rules: rules.judge)
        print(f"{size:>7} networks: read in {reading:.3f} s, compiled in {compiling:.3f} s")
        for name, ip in CLIENTS.items():
            print(f"{'':>17} {name:<8} {_best(lambda: rules.decide(ip=ip)):8.2f} us")  # noqa: B023
        full = DynamicRules.from_mapping({**document, **MORE})
        whole = _best(lambda: full.decide(ip=CLIENTS["IPv4"], **REQUEST))  # noqa: B023
        print(f"{'':>17} {'request':<8} {whole:8.2f} us")
    print(f"one loop over 1,000 ipaddress networks: {_best(_loop(1_000), 50):.0f} us")
    limiter = RateLimiter(DynamicRules(global_rate_limit=10**9))
    print(f"a hit of a limiter: {_best(lambda: limiter.hit('203.0.113.9')):.2f} us")


def _networks(count: int) -> Iterator[str]:
    rng = random.Random(count)
    for number in range(count):
        first = f"{rng.randrange(1, 224)}.{rng.randrange(256)}.{rng.randrange(256)}"
        if number % 5 < 2:
            yield f"{first}.{rng.randrange(256)}"
        elif number % 5 < 4:
            yield f"{first}.0/{rng.randrange(12, 32)}"
        else:
            yield f"2001:{rng.randrange(65_536):x}:{rng.randrange(65_536):x}::/{rng.randrange(128)}"


def _loop(count: int) -> Callable[[], bool]:
    networks = [ipaddress.ip_network(text, strict=False) for text in _networks(count)]

    def look() -> bool:
        address = ipaddress.ip_address(CLIENTS["IPv4"])
        return any(address in network for network in networks)

    return look


def _timed(work: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    began = time.perf_counter()
    result = work(*args)
    return result, time.perf_counter() - began


def _best(work: Callable[[], object], calls: int = 20_000) -> float:
    """Return the microseconds of one call."""
    rounds = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(calls):
            work()
        rounds.append(time.perf_counter() - began)
    return min(rounds) / calls * 1e6


if __name__ == "__main__":
    main()
