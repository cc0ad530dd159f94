"""A Flask application on a real server, and the client in another process that keeps it busy."""

from __future__ import annotations

import http.client
import logging
import subprocess
import sys
import threading
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["driven_application"]


@contextmanager
def driven_application(capture: Callable[[], object]) -> Iterator[Callable[[str, int], None]]:
    """Serve ``/plain`` and ``/captured``, and give what asks for a path so many times."""
    serving = import_module("werkzeug.serving")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = serving.make_server("127.0.0.1", 0, _application(capture), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with _client(server.port) as ask:
            yield ask
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _application(capture: Callable[[], object]) -> Any:
    flask = import_module("flask")
    application = flask.Flask("bench")
    answer = {"orders": list(range(20))}

    def plain() -> Any:
        return flask.jsonify(answer)

    def captured() -> Any:
        capture()
        return flask.jsonify(answer)

    for view in (plain, captured):
        application.add_url_rule(f"/{view.__name__}", view_func=view)
    return application


@contextmanager
def _client(port: int) -> Iterator[Callable[[str, int], None]]:
    command = [sys.executable, "-m", __name__, str(port)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        orders, answers = process.stdin, process.stdout

        def ask(path: str, count: int) -> None:
            print(path, count, file=orders, flush=True)
            answers.readline()

        yield ask


def _drive(port: int) -> None:
    """Carry out the orders on standard input, one request at a time."""
    for line in sys.stdin:
        path, count = line.split()
        for _ in range(int(count)):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", path)
            connection.getresponse().read()
            connection.close()
        print("done", flush=True)


if __name__ == "__main__":
    _drive(int(sys.argv[1]))
