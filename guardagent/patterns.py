"""Regular expressions from outside, and how they are kept from taking all the time there is.

An expression is refused when it could take too long on some text, and so is one that is too long
or too much together with the others; a text is looked at through windows of bounded length.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any

import attrs

from guardagent._regexcost import steps

if sys.version_info >= (3, 11):
    from re import _compiler, _parser  # type: ignore[attr-defined]  # not in the stubs
else:
    import sre_compile as _compiler
    import sre_parse as _parser

__all__ = ["PATTERN_MAX", "Patterns"]

#: Characters of one expression, and of all that are not plain words.
PATTERN_MAX = 1000
_TOGETHER_MAX = 64 * 1024
#: Steps that one expression, and all of them, may take on the worst text; a step is 1 to 10 ns.
_STEPS_MAX = 24e6
_STEPS_TOGETHER = 256e6
_SPECIAL = frozenset(r".^$*+?{}[]\|()")
#: Escaped characters, and sets with what is in them.
_SETS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_DOUBLED = re.compile(r"(?<!\\)(?:--|&&|~~|\|\|)")
_FLAGS = re.IGNORECASE | re.MULTILINE


@attrs.frozen
class _Expression:
    """One expression, ready to search; `tree` only until it is known how far it may look."""

    source: str
    tree: Any
    pattern: re.Pattern[str]


class Patterns:
    """Expressions that are searched for in a text, in any case (`re.IGNORECASE | re.MULTILINE`).

    Args:
        sources: plain words and expressions.
        text_max: characters of a text that are looked at.
        windows: lengths of the windows it is looked at through, longest first; the shorter one an
            expression gets, the more it may try. Windows overlap by half.

    Raises:
        ValueError: an expression cannot be used; the second argument is its position, None when
            it is all of them together.
    """

    __slots__ = ("_expressions", "_text_max", "_words")

    def __init__(self, sources: Sequence[str], *, text_max: int, windows: Sequence[int]) -> None:
        self._text_max = text_max
        self._words: list[tuple[str, str]] = []
        found: list[_Expression] = []
        length = 0
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
                found.append(_compile(source))
            except ValueError as error:
                raise ValueError(str(error), position) from None
        #: By length of the window, for whoever gets along with that one.
        self._expressions = _within_steps(found, sources, text_max, windows)

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


def _compile(source: str) -> _Expression:
    """Compile an expression past the cache of `re`, which belongs to the application."""
    if _has_unclear_set(source):
        raise ValueError("a regular expression whose sets hold no [, --, &&, ~~ or ||")
    try:
        tree = _parser.parse(source, _FLAGS)
        _drop_idle_start(tree)
        return _Expression(source, tree, _compiler.compile(tree))
    except (re.error, OverflowError, RecursionError, Warning) as error:
        what = error.msg if isinstance(error, re.error) else type(error).__name__
        raise ValueError(f"a regular expression ({what})") from None


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
    found: Sequence[_Expression], sources: Sequence[str], text_max: int, windows: Sequence[int]
) -> list[tuple[int, list[tuple[str, re.Pattern[str]]]]]:
    """Give each expression the longest window within which its steps are bounded."""
    for longest in range(len(windows)):
        total = 0.0
        chosen: dict[int, list[tuple[str, re.Pattern[str]]]] = {}
        for one in found:
            try:
                window, cost = _fitting(one, text_max, windows[longest:])
            except (ValueError, RecursionError) as error:
                what = "not nested so deeply" if isinstance(error, RecursionError) else error
                position = sources.index(one.source)
                raise ValueError(f"a regular expression {what}", position) from None
            if cost > _STEPS_MAX:
                allowed = "a regular expression that does not backtrack for long"
                raise ValueError(allowed, sources.index(one.source))
            chosen.setdefault(window, []).append((one.source, one.pattern))
            total += cost
        if total <= _STEPS_TOGETHER:
            return sorted(chosen.items(), reverse=True)
    raise ValueError("regular expressions that backtrack less, all together", None)


def _fitting(one: _Expression, text_max: int, windows: Sequence[int]) -> tuple[int, float]:
    window, cost = 0, 0.0
    for window in windows:
        searches = max(1, 2 * text_max // window - 1)
        cost = searches * steps(one.tree, window)
        if cost <= _STEPS_MAX:
            break
    return window, cost
