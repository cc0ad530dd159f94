"""Clients of redis-py for the spool: with bounded waiting, and without repeats of their own.

A command that redis-py sends again after a lost answer would append its records twice, so nothing
here is repeated; the spool tries again by itself. An application's client serves as the pattern
for connections of the spool's own: it may wait for ever, decode what it reads, or be closed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from guardagent.errors import ConfigError
from guardagent.spool.redis_address import Address

__all__ = ["Opened", "check_client", "open_client"]

#: Seconds for one connection, and for one answer.
_PATIENCE = 2.0
#: What is taken over of a client's settings; `ssl...` too.
_TAKEN = (
    *("host", "port", "path", "db", "username", "password", "credential_provider", "client_name"),
    *("protocol", "socket_timeout", "socket_connect_timeout", "socket_keepalive"),
    *("socket_keepalive_options", "socket_type", "socket_read_size", "health_check_interval"),
    "redis_connect_func",
)
#: What a unix socket has no use for, and its connection no argument.
_TCP_ONLY = ("host", "port", "socket_keepalive", "socket_keepalive_options", "socket_type")

#: A client, and what closes it.
Opened = tuple[Any, Callable[[], object]]
Options = dict[str, Any]


def _library() -> Any:
    """Load it when it is first needed; as Any, for its annotations differ between versions."""
    import redis

    return redis


def check_client(value: Any) -> None:
    """Refuse what is not a client of redis-py.

    Raises:
        ConfigError: says what is allowed.
    """
    redis = _library()

    if not isinstance(value, (redis.Redis, redis.RedisCluster)):
        raise ConfigError(
            f"spool: given a {type(value).__module__}.{type(value).__qualname__}, allowed:"
            " redis.Redis, redis.RedisCluster or an address"
        )


def open_client(where: Address | Any, patience: float | None = None) -> Opened:
    """Return a client; a cluster is asked for its nodes now, all others connect later.

    Args:
        where: an address, or a client that serves as the pattern.
        patience: seconds for one connection and for one answer, instead of what `where` says.

    Raises:
        TypeError: an option of the address is not known.
        ValueError: one has a wrong value.
        redis.RedisError: the cluster is away.
    """
    redis = _library()
    bounds: Options = {}
    if patience is not None:
        bounds = {"socket_timeout": patience, "socket_connect_timeout": patience}

    if isinstance(where, redis.RedisCluster):
        nodes = [(node.host, node.port) for node in where.nodes_manager.startup_nodes.values()]
        given = {**where.get_connection_kwargs(), "redis_connect_func": where.user_on_connect_func}
        return _cluster(nodes, {**_options(given), **bounds})
    if isinstance(where, redis.Redis):
        return _like(where.connection_pool, bounds)
    given = redis.connection.parse_url(where.url)
    kind: type[Any] = given.pop("connection_class", redis.Connection)
    sentinels = {
        name: given.pop(f"sentinel_{name}")
        for name in ("username", "password")
        if f"sentinel_{name}" in given
    }
    options = {**_options({}), **given, **bounds, "decode_responses": False}
    if where.kind == "server":
        return _server(kind, options)
    kind(**options)  # would be the first to see an option that is not known
    if issubclass(kind, redis.SSLConnection):
        options["ssl"] = True
    if where.kind == "cluster":
        return _cluster(where.hosts, options)
    return _sentinel(where, options, sentinels)


def _options(given: Options) -> Options:
    redis = _library()

    taken = {
        name: value
        for name, value in given.items()
        if value is not None and (name in _TAKEN or name.startswith("ssl"))
    }
    return {
        "socket_timeout": _PATIENCE,
        "socket_connect_timeout": _PATIENCE,
        "socket_keepalive": True,
        "protocol": 2,  # of which every version says the same
        **taken,
        "retry": redis.retry.Retry(redis.backoff.NoBackoff(), 0),
    }


def _server(kind: type[Any], options: Options) -> Opened:
    redis = _library()

    if issubclass(kind, redis.UnixDomainSocketConnection):
        options = {name: value for name, value in options.items() if name not in _TCP_ONLY}
    kind(**options)
    pool = redis.ConnectionPool(connection_class=kind, **options)
    return redis.Redis(connection_pool=pool), pool.disconnect


def _like(pool: Any, bounds: Options) -> Opened:
    """Return a client that goes where the application's goes."""
    redis = _library()
    options = {**_options(pool.connection_kwargs), **bounds}
    if not isinstance(pool, redis.sentinel.SentinelConnectionPool):
        return _server(pool.connection_class, options)
    opened = [_like(one.connection_pool, bounds) for one in pool.sentinel_manager.sentinels]
    manager = redis.sentinel.Sentinel([], **options)
    manager.sentinels = [client for client, _ in opened]
    client = manager.master_for(pool.service_name, connection_class=pool.connection_class)
    closers = [client.connection_pool.disconnect, *(close for _, close in opened)]
    return client, lambda: [close() for close in closers]


def _sentinel(where: Address, options: Options, credentials: Options) -> Opened:
    of_theirs = {
        name: value
        for name, value in options.items()
        if name.startswith(("socket_", "ssl")) or name in ("retry", "protocol")
    }
    manager = _library().sentinel.Sentinel(
        where.hosts, sentinel_kwargs={**of_theirs, **credentials}, **options
    )
    client = manager.master_for(where.service)
    closers = [client.connection_pool.disconnect, *(one.close for one in manager.sentinels)]
    return client, lambda: [close() for close in closers]


def _cluster(nodes: Sequence[tuple[str, int]], options: Options) -> Opened:
    redis = _library()

    for name in ("host", "port", "db"):
        options.pop(name, None)  # each node has its own, and a cluster only one database
    if redis.VERSION < (6,):
        options["cluster_error_retry_attempts"] = 0  # later ones look into `retry`
    client = redis.RedisCluster(
        startup_nodes=[redis.cluster.ClusterNode(host, port) for host, port in nodes], **options
    )
    return client, client.close
