"""An application of `guarded` in a server of its own process, until SIGTERM; prints its port.

Given besides: framework; early (Tornado's middleware is made before there is a loop).
"""

import asyncio
import json
import logging
import socket
import sys

import guarded


def listen():
    listener = socket.create_server(("127.0.0.1", 0))
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    return listener


def serve_fastapi(given):
    import uvicorn

    app = guarded.make_fastapi(given)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listen()])


def serve_flask(given):
    serve_wsgi(guarded.make_flask(given))


def serve_django(given):
    serve_wsgi(guarded.make_django(given))


def serve_wsgi(app):
    from werkzeug.serving import make_server

    listener = listen()
    host, port = listener.getsockname()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    make_server(host, port, app, threaded=True, fd=listener.fileno()).serve_forever()


def serve_tornado(given):
    from tornado.httpserver import HTTPServer
    from tornadoapi_guard import SecurityMiddleware

    def make():
        return SecurityMiddleware(config=guarded.security(given))

    async def main(middleware):
        middleware = middleware or make()
        await middleware.initialize()
        server = HTTPServer(guarded.make_tornado(middleware))
        listener = listen()
        listener.setblocking(False)
        server.add_socket(listener)
        await asyncio.Event().wait()

    asyncio.run(main(make() if given.get("early") else None))


def main(given):
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    guarded.prepare(given)
    {
        "fastapi": serve_fastapi,
        "flask": serve_flask,
        "django": serve_django,
        "tornado": serve_tornado,
    }[given["framework"]](given)


main(json.loads(sys.argv[1]))
