"""Regular expressions from outside, and how they are kept from taking all the time there is.

An expression is refused when it could take too long on some text, or to be made ready, and so are
all of them when they could together; a text is looked at through windows of bounded length.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from guardagent._regexcost import steps
from guardagent._regexeffort import effort
from guardagent._regextree import Run, read

if sys.version_info >= (3, 11):
    from re import _compiler, _parser  # type: ignore[attr-defined]  # not in the stubs
else:
    import sre_compile as _compiler
    import sre_parse as _parser

__all__ = ["PATTERN_MAX", "Patterns"]

#: Characters of one expression, and of all that are not plain words.
PATTERN_MAX = 1000
_TOGETHER_MAX = 64 * 1024
#: What all of them may take to be made ready: a second at most.
_EFFORT_MAX = 2_000_000
#: Steps that one expression, and all of them, may take on the worst texts; a step is 1 to 2 ns.
_STEPS_MAX = 100e6
_STEPS_TOGETHER = 400e6
#: When they are too many together, none may take more than such a part if less will do for it.
_PARTS = (1, 8, 64, 512)
_SPECIAL = frozenset(r".^$*+?{}[]\|()")
#: Escaped characters, and sets with what is in them.
_SETS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_DOUBLED = re.compile(r"(?<!\\)(?:--|&&|~~|\|\|)")
_FLAGS = re.IGNORECASE | re.MULTILINE
#: What the parser and the compiler raise; a warning is an error where the application says so.
_BROKEN = (re.error, OverflowError, RecursionError, Warning)


class _Expression:
    """One expression, ready to search."""

    def __init__(self, source: str, tree: Any, text_max: int, texts: int) -> None:
        self.source = source
        self.pattern: re.Pattern[str] = _compiler.compile(tree)
        self._run: Run = read(tree)
        self._text_max = text_max
        self._texts = texts
        self._steps: dict[int, float] = {}

    def steps(self, window: int) -> float:
        """Return what looking through all the texts takes at most, through windows so long."""
        if window not in self._steps:
            searches = self._texts * max(1, 2 * self._text_max // window - 1)
            self._steps[window] = searches * steps(self._run, window)
        return self._steps[window]


class Patterns:
    """Expressions that are searched for in a text, in any case (`re.IGNORECASE | re.MULTILINE`).

    Args:
        sources: plain words and expressions.
        text_max: characters of a text that are looked at.
        texts: how many texts are looked through for one answer.
        windows: lengths of the windows they are looked at through, longest first; the shorter one
            an expression gets, the more it may try. Windows overlap by half.

    Raises:
        ValueError: an expression cannot be used; the second argument is its position, None when
            it is all of them together.
    """

    __slots__ = ("_expressions", "_text_max", "_words")

    def __init__(
        self, sources: Sequence[str], *, text_max: int, texts: int = 1, windows: Sequence[int]
    ) -> None:
        self._text_max = text_max
        self._words: list[tuple[str, str]] = []
        found: dict[int, _Expression] = {}
        length = work = 0
        for position, source in enumerate(sources):
            if len(source) > PATTERN_MAX:
                raise ValueError(f"at most {PATTERN_MAX} characters", position)
            if source.isascii() and _SPECIAL.isdisjoint(source):
                self._words.append((source.lower(), source))
                continue
            length += len(source)
            if length > _TOGETHER_MAX:
                raise ValueError(f"expressions of {_TOGETHER_MAX} characters together", position)
            try:
                tree = _parsed(source)
                work += effort(tree)
                found[position] = _Expression(source, _within_effort(tree, work), text_max, texts)
            except (ValueError, *_BROKEN) as error:
                raise ValueError(_allowed(error), position) from None
        #: By length of the window, for whoever gets along with that one.
        self._expressions = _within_steps(found, windows)

    def __bool__(self) -> bool:
        return bool(self._words or self._expressions)

    def find(self, text: str) -> str | None:
        """Return the first of the expressions that is found in the text."""
        text = text[: self._text_max]
        lower = text.lower()
        for word, source in self._words:
            if word in lower:
                return source
        for window, expressions in self._expressions:
            for start in range(0, max(1, len(text) - window // 2), window // 2):
                stop = start + window
                for source, pattern in expressions:
                    if pattern.search(text[start:stop]):
                        return source
        return None


def _parsed(source: str) -> Any:
    """Parse an expression past the cache of `re`, which belongs to the application."""
    if _has_unclear_set(source):
        raise ValueError("a regular expression whose sets hold no [, --, &&, ~~ or ||")
    tree = _parser.parse(source, _FLAGS)
    _drop_idle_start(tree)
    return tree


def _within_effort(tree: Any, work: int) -> Any:
    if work > _EFFORT_MAX:
        raise ValueError("regular expressions with smaller ranges, or fewer |")
    return tree


def _allowed(error: Exception) -> str:
    """Say what would be allowed in place of an expression that failed."""
    if isinstance(error, re.error):
        return f"a regular expression ({error.msg})"
    if isinstance(error, _BROKEN):
        return f"a regular expression ({type(error).__name__})"
    return str(error)


def _has_unclear_set(source: str) -> bool:
    """Tell whether a set is of a form that Python warns of on standard error, and may give up."""
    sets = (found[0] for found in _SETS.finditer(source))
    return any(one.startswith("[[") or _DOUBLED.search(one) for one in sets)


def _drop_idle_start(tree: Any) -> None:
    """Take `.*` from the start, where it changes nothing of what is found but the time."""
    while len(tree) > 1:
        op, value = tree[0]
        is_idle = str(op) in ("MAX_REPEAT", "MIN_REPEAT") and value[0] == 0
        if not (is_idle and len(value[2]) == 1 and str(value[2][0][0]) == "ANY"):
            return
        del tree[0]


def _within_steps(
    found: Mapping[int, _Expression], windows: Sequence[int]
) -> list[tuple[int, list[tuple[str, re.Pattern[str]]]]]:
    """Give each expression the longest window within which the steps are bounded."""
    for part in _PARTS:
        chosen: dict[int, list[tuple[str, re.Pattern[str]]]] = {}
        total = 0.0
        for position, one in found.items():
            window = _fitting(one, windows, _STEPS_MAX / part)
            cost = one.steps(window)
            if cost > _STEPS_MAX:
                raise ValueError("a regular expression that does not backtrack for long", position)
            chosen.setdefault(window, []).append((one.source, one.pattern))
            total += cost
        if total <= _STEPS_TOGETHER:
            return sorted(chosen.items(), reverse=True)
    raise ValueError("regular expressions that backtrack less, all together", None)


def _fitting(one: _Expression, windows: Sequence[int], most: float) -> int:
    """Return the longest window with at most so many steps, or that with the fewest."""
    for window in windows:
        if one.steps(window) <= most:
            return window
    return min(windows, key=one.steps)
