"""Becomes a web server that imports `hosted:app`; prints its port.

Given besides: server, its command line, in which {fd} stands for the listening socket.
"""

import json
import os
import socket
import sys
from pathlib import Path

given = json.loads(sys.argv[1])
listener = socket.create_server(("127.0.0.1", 0))
listener.set_inheritable(True)
print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
os.environ["GUARD_PROGRAM"] = sys.argv[1]
os.chdir(Path(__file__).parent)
words = [word.replace("{fd}", str(listener.fileno())) for word in given["server"]]
os.execv(sys.executable, [sys.executable, "-m", *words, "hosted:app"])
