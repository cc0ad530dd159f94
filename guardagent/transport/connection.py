"""Connections that end at a deadline: no peer can hold a thread by being slow.

A socket's timeout starts anew with every byte, so a server that drips one byte a second is never
too late for it. Here each read and write gets what is left of the request's own time.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
import weakref
from functools import partial
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.retry import Retry

__all__ = ["DeadlineAdapter"]


class _DeadlineReader(io.RawIOBase):
    """A socket's raw stream whose reads together end at a deadline (monotonic seconds)."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, deadline: float) -> None:
        super().__init__()
        self._raw = raw
        self._sock = sock
        self._deadline = deadline
        #: True once the peer has sent its last byte.
        self.has_ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer took too long")
        self._sock.settimeout(left)
        count = self._raw.readinto(buffer)
        self.has_ended = count == 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _DeadlineResponse(http.client.HTTPResponse):
    """Reads its status line, headers and body within what is left of the request's time."""

    def __init__(self, sock: socket.socket, *args: Any, deadline: float, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        raw = self.fp.detach()
        self._reader = _DeadlineReader(raw, sock, deadline)
        self.fp = io.BufferedReader(self._reader)

    def begin(self) -> None:
        """Read the head; one that its sender did not finish is no answer (RFC 9112 8).

        `http.client` takes the end of the stream for the end of the headers, and would make an
        acceptance of a "200" that was cut off.
        """
        super().begin()
        if self._reader.has_ended:
            self.close()
            raise http.client.RemoteDisconnected("the answer ended within its head")


class _Timed:
    """What both kinds of connection share; `timeout` is what is left when the request starts."""

    sock: socket.socket | None
    timeout: float | None
    opened: weakref.WeakSet[Any]  # set by the adapter's subclass
    _ends_at: float = 0.0
    _is_fresh: bool = False
    #: A second handle on the connection: it works during a TLS handshake too.
    handle: socket.socket | None = None

    def _new_conn(self) -> socket.socket:
        sock: socket.socket = super()._new_conn()  # type: ignore[misc]
        self._drop_handle()
        self.handle = sock.dup()
        self.opened.add(self)
        return sock

    def connect(self) -> None:
        # A tunnel and a TLS handshake come before the request; their time is part of its time.
        self._start()
        self._is_fresh = True
        super().connect()  # type: ignore[misc]

    def request(self, *args: Any, **kwargs: Any) -> None:
        if not self._is_fresh:
            self._start()
        try:
            super().request(*args, **kwargs)  # type: ignore[misc]
        finally:
            self._is_fresh = False  # only now: without TLS it connects within the request

    def _start(self) -> None:
        self._ends_at = time.monotonic() + float(self.timeout or 0)
        self._expect(self._ends_at)

    def _expect(self, ends_at: float) -> None:
        """Have answers read until then, a proxy's answer to CONNECT included."""
        self.response_class = partial(_DeadlineResponse, deadline=ends_at)

    def send(self, data: Any) -> None:
        if self.sock is not None:
            self.sock.settimeout(max(0.001, self._ends_at - time.monotonic()))
        super().send(data)  # type: ignore[misc]

    def getresponse(self) -> Any:
        self._expect(min(self._ends_at, time.monotonic() + float(self.timeout or 0)))
        return super().getresponse()  # type: ignore[misc]

    def close(self) -> None:
        try:
            super().close()  # type: ignore[misc]
        finally:
            self._drop_handle()

    def _drop_handle(self) -> None:
        handle, self.handle = self.handle, None
        if handle is not None:
            handle.close()

    def abort(self) -> None:
        """Break the connection; whoever reads or writes it in another thread gets an error."""
        handle = self.handle
        if handle is not None:
            try:
                handle.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # gone already

    def forget(self) -> None:
        """Close this process's descriptors without a word to the peer."""
        self._drop_handle()
        sock, self.sock = self.sock, None
        if sock is not None:
            socket.close(sock.detach())


class DeadlineAdapter(HTTPAdapter):
    """An adapter whose connections keep deadlines and can be broken from outside."""

    def __init__(self, retry: Retry) -> None:
        self.opened: weakref.WeakSet[_Timed] = weakref.WeakSet()
        plain = type("Connection", (_Timed, HTTPConnection), {"opened": self.opened})
        secure = type("SecureConnection", (_Timed, HTTPSConnection), {"opened": self.opened})
        self._pools: dict[str, Any] = {
            "http": type("Pool", (HTTPConnectionPool,), {"ConnectionCls": plain}),
            "https": type("SecurePool", (HTTPSConnectionPool,), {"ConnectionCls": secure}),
        }
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=retry)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make a pool manager of our connections."""
        super().init_poolmanager(*args, **kwargs)
        self._use_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Make a proxy manager of our connections; SOCKS has connections of its own."""
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):
            self._use_pools(manager)
        return manager

    def _use_pools(self, manager: PoolManager) -> None:
        manager.pool_classes_by_scheme = self._pools
