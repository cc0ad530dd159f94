"""Parts the machinery's tests are built of: a scripted transport, a clock's bell, records."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from types import FrameType
from typing import Any

import attrs

from guardagent import AgentConfig
from guardagent._clock import Bell
from guardagent.encoding import Record, record_key
from guardagent.errors import TransientError
from guardagent.fields import Kind
from guardagent.spool.protocol import Batch
from guardagent.testing.clock import ManualClock
from guardagent.transport.protocol import Receipt

__all__ = [
    "OUTAGE",
    "PATIENCE",
    "Held",
    "ManualBell",
    "ScriptedTransport",
    "Sent",
    "at_each_opcode",
    "config",
    "in_threads",
    "key",
    "keys",
    "once_at",
    "record",
    "records",
    "told",
]

#: No wait of a test lasts longer; a hang is then a failure.
PATIENCE = 20.0

OUTAGE = TransientError("HTTP 503", status=503)

Answer = Receipt | BaseException | Callable[[Batch], Receipt]


def config(**settings: Any) -> AgentConfig:
    """Return settings under which nothing waits for long."""
    given: dict[str, Any] = {
        "api_key": "test-key-0123456789",
        "endpoint": "http://127.0.0.1:9",
        "flush_interval": 0.05,
        "retry_attempts": 2,
        "backoff_factor": 0.01,
        "shutdown_timeout": 2.0,
    }
    return AgentConfig(**{**given, **settings})


def key(number: int) -> str:
    """Return the idempotency key of `record(number)`."""
    return f"key-{number:06d}"


def record(
    number: int, kind: Kind = "events", *, created_at: float = 0.0, size: int = 40
) -> Record:
    """Return a record whose body has exactly `size` bytes."""
    body = b'{"idempotency_key":"%s","x":"' % key(number).encode()
    return Record(kind, body.ljust(size - 2, b"-") + b'"}', created_at)


def records(count: int, kind: Kind = "events", *, start: int = 0, **fields: Any) -> list[Record]:
    return [record(start + n, kind, **fields) for n in range(count)]


def keys(bodies: Iterable[bytes]) -> list[str]:
    return [record_key(body) for body in bodies]


class ManualBell(Bell):
    """A bell whose waits take the clock's time and none of the test's."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        if super().wait(0):
            return True
        assert timeout is not None, "it would wait for ever"
        self._clock.advance(timeout)
        return False


@attrs.frozen
class Sent:
    """One attempt as the transport saw it."""

    kind: Kind
    batch_id: str
    bodies: Sequence[bytes]
    deadline: float | None

    @property
    def keys(self) -> list[str]:
        return keys(self.bodies)


@attrs.frozen(eq=False)
class Held:
    """An answer that comes when the test lets go of it."""

    then: Answer = attrs.field(factory=Receipt)
    reached: threading.Event = attrs.field(factory=threading.Event)
    _gate: threading.Event = attrs.field(factory=threading.Event)

    def let_go(self) -> None:
        self._gate.set()

    def __call__(self, batch: Batch) -> Receipt:
        self.reached.set()
        self._gate.wait(PATIENCE)
        return _play(self.then, batch)


class ScriptedTransport:
    """Answers each attempt from its script, then accepts everything; `Transport` in full.

    Args:
        answers: receipts to return, exceptions to raise, or functions of the batch that do either.
    """

    def __init__(self, *answers: Answer) -> None:
        self._changed = threading.Condition()  # guards the lists
        self._script = deque(answers)
        self._sent: list[Sent] = []
        self._accepted: list[str] = []
        self.default: Answer = Receipt(100)
        self.calls: list[str] = []

    def send(self, batch: Batch, deadline: float | None = None) -> Receipt:
        sent = Sent(batch.kind, batch.batch_id, tuple(batch.bodies), deadline)
        with self._changed:
            answer = self._script.popleft() if self._script else self.default
            self._sent.append(sent)
            self._changed.notify_all()
        receipt = _play(answer, batch)
        with self._changed:
            self._accepted += [one for one in sent.keys if one not in receipt.rejected]
            self._changed.notify_all()
        return receipt

    def abort(self) -> None:
        self.calls.append("abort")

    def close(self) -> None:
        self.calls.append("close")

    def after_fork(self) -> None:
        self.calls.append("after_fork")

    def script(self, *answers: Answer) -> None:
        """Add to the script."""
        with self._changed:
            self._script.extend(answers)

    @property
    def sent(self) -> list[Sent]:
        """Every attempt so far."""
        with self._changed:
            return list(self._sent)

    @property
    def accepted(self) -> list[str]:
        """The accepted keys so far, repeats included."""
        with self._changed:
            return list(self._accepted)

    def wait_for(self, count: int) -> bool:
        """Wait until so many records were accepted."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._accepted) >= count, PATIENCE)

    def wait_for_attempts(self, count: int) -> bool:
        """Wait until so many requests were made."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._sent) >= count, PATIENCE)


def _play(answer: Answer, batch: Batch) -> Receipt:
    if isinstance(answer, BaseException):
        raise answer
    return answer(batch) if callable(answer) else answer


def in_threads(count: int, work: Callable[[int], object]) -> list[Any]:
    """Run `work` in so many threads at once; return what each returned, in order."""
    started = threading.Barrier(count)
    results: list[Any] = [None] * count

    def run(number: int) -> None:
        started.wait(PATIENCE)
        results[number] = work(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)

    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    return results


def at_each_opcode(
    functions: Iterable[Any], action: Callable[[], object], work: Callable[[], object]
) -> int:
    """Run `action` before each bytecode of `functions` while `work` runs; return how often."""
    codes = {function.__code__ for function in functions}
    count = 0
    is_inside = False

    def trace(frame: FrameType, what: str, argument: object) -> Any:
        nonlocal count, is_inside
        if frame.f_code not in codes:
            return None
        frame.f_trace_opcodes = True
        if what == "opcode" and not is_inside:
            is_inside = True
            count += 1
            try:
                action()
            finally:
                is_inside = False
        return trace

    former = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # 3.12 asks for it before the trace is set
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(former)
    return count


def once_at(count: int, action: Callable[[], object]) -> Callable[[], None]:
    """Return a function that does `action` at its call number `count`, from 0, and nothing else."""
    calls = 0

    def call() -> None:
        nonlocal calls
        if calls == count:
            action()
        calls += 1

    return call


def told(owner: Any, method: str) -> threading.Event:
    """Return an event that is set as soon as a method of `owner` was called."""
    happened, call = threading.Event(), getattr(owner, method)

    def tell(*args: Any) -> Any:
        result = call(*args)
        happened.set()
        return result

    setattr(owner, method, tell)
    return happened
