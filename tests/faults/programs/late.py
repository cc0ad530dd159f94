"""Captures its first events when the interpreter is already shutting down."""

from __future__ import annotations

import atexit
import threading
import weakref

from parts import ARGUMENTS, build, capture, report

how = ARGUMENTS["how"]
count = ARGUMENTS.get("count", 5)


class Subject:
    """Something that a finalizer can watch."""


def last_words() -> None:
    report(captured=capture(agent, count))


class Farewell:
    """Captures when it is collected, at the very end."""

    def __del__(self) -> None:
        self.agent.capture({"event_type": "farewell"})


if how == "atexit_first":
    atexit.register(last_words)  # runs after whatever the agent registers
agent = build()
if how == "atexit_last":
    agent.start()
    atexit.register(last_words)  # runs before the agent's own
elif how == "atexit_unstarted":
    atexit.register(last_words)
elif how == "atexit_after_some":
    report(captured=capture(agent, count))
    agent.flush(timeout=10.0)
    atexit.register(last_words)
elif how == "finalizer":
    subject = Subject()
    weakref.finalize(subject, last_words)
elif how == "thread":
    main = threading.main_thread()

    def outlive() -> None:
        main.join()
        last_words()

    threading.Thread(target=outlive).start()
elif how == "del":
    farewell = Farewell()
    farewell.agent = agent
    report(captured=capture(agent, count))
