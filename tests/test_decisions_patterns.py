"""Regular expressions from outside: which are refused, and what the others may cost."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardagent.patterns import Patterns

WINDOWS = (2048, 1024, 512, 256)


def patterns(*sources: str, windows: Sequence[int] = WINDOWS) -> Patterns:
    return Patterns(sources, text_max=8192, windows=windows)


@pytest.mark.parametrize(
    "source",
    [
        r"(a+)+$",
        r"(a*)*b",
        r"(a|a)*b",
        r"(a|a?)+$",
        r"(x+x+)+y",
        r"(.*,){11}P",
        r"(\w+\s?)*x",
        r"^(([a-z])+.)+[A-Z]([a-z])+$",
        r"(?:a?){30}a{30}",
        r"(?:(?:a{1,100}){1,100}){1,100}b",
        r"((a{0,50}){0,50}){0,50}b",
        r"(?=(a+)+b)a",
        r"(?:a|b?)*c",
        r"([a-z0-9]+[._-]?)+@",
        r".+.+.+x",
        r"\s*\s*\s*x",
        r"a.*b.*c",
        r"(.*)=(.*);(.*)x",
        r"(?:%0a|%0d|\r|\n)+\s*(?:set-cookie|location):",
    ],
)
def test_catastrophic_expressions_are_refused(source: str) -> None:
    """Those that are exponential, and those of a high power on a text of this length."""
    with pytest.raises(ValueError, match="does not backtrack for long"):
        patterns(source)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (r"union\s+select", "1 UNION  SELECT 2"),
        (r"union.*select", "union/**/select"),
        (r"union.*select.*from", "union all select a from b"),
        (r"(?:union\s+(all\s+)?select\s+.*from)", "union all select a from b"),
        (r"<script[^>]*>.*</script>", "<script src=x>alert(1)</script>"),
        (r"\bon\w+\s*=", "x onload = y"),
        (r"(\.\./)+etc", "../../etc"),
        (r"['\"]\s*(?:or|and)\s+['\"]?\d+['\"]?\s*=\s*['\"]?\d+", "' or 1=1"),
        (r"\$\{jndi:(?:ldap|rmi|dns)://.*\}", "${jndi:ldap://x/y}"),
        (r"eval\s*\(.*base64_decode", "eval ( base64_decode"),
        (r"(?:etc|proc)/(?:passwd|self/environ)", "proc/self/environ"),
        (r".*select.*", "xselectx"),
        (r"[^\x20-\x7e]", "\u0661"),
        (r"\d+\.\d+\.\d+\.\d+x", "1.2.3.4x"),
        (r"(?:a|b|c)*d", "abcd"),
        (r"(a)(?(1)b|c)", "ab"),
        (r"(\w)\1x", "aax"),
        (r"(?<=a)b(?!c)", "abd"),
        (r"\Aabc\Z", "abc"),
        (r"[\u0400-\u04ff]+\d", "\u0416\u04161"),
        (r"", ""),
    ],
)
def test_ordinary_expressions_are_taken(source: str, text: str) -> None:
    """What rules are really made of; they find what they are to find."""
    found = patterns(source).find(text)

    assert found == source


#: Parts that make good and bad expressions alike.
_PARTS = ["a", "b", ".", r"\w", r"\s", "[ab]", "(a|b)", "(a|ab)", "(?:ab)", "(?:a|b?)", " "]
_TIMES = ["", "*", "+", "?", "{2,9}", "*?"]


@st.composite
def expressions(draw: st.DrawFn) -> str:
    def part(depth: int) -> str:
        inner = draw(st.sampled_from(_PARTS))
        if depth and draw(st.booleans()):
            inner = f"(?:{part(depth - 1)}{part(depth - 1)})"
        return inner + draw(st.sampled_from(_TIMES))

    return "".join(part(2) for _ in range(draw(st.integers(1, 3)))) + draw(st.sampled_from("xb"))


#: Texts on which the parts above go wrong, if anything does; nothing ends in what is looked for.
_TEXTS = [
    (unit * 256)[:255] + "-"
    for unit in ("".join(units) for n in (1, 2, 3) for units in itertools.product("ab ", repeat=n))
]


@given(expressions())
def test_what_is_taken_comes_to_an_end(source: str) -> None:
    """An expression that was let through by mistake would hang this test."""
    try:
        taken = patterns(source)
    except ValueError:
        return

    assert {taken.find(text) for text in _TEXTS} <= {None, source}


@given(
    st.lists(st.sampled_from(["ab", "a.b", "[xy]+z", "^q", r"\d{3}", "k$"]), max_size=4),
    st.text(alphabet="abqxyzk1 ", max_size=30),
)
def test_the_first_that_matches_is_found(sources: list[str], text: str) -> None:
    """One loop of `re.search` says the same; plain words come first."""
    words = [source for source in sources if source.isalnum()]
    rest = [source for source in sources if not source.isalnum()]
    hits = [one for one in words + rest if re.search(one, text, re.IGNORECASE | re.MULTILINE)]

    assert patterns(*sources).find(text) == (hits[0] if hits else None)


def test_a_costly_expression_looks_through_smaller_windows() -> None:
    """They overlap, so that what is shorter than half of one is found wherever it is."""
    costly = patterns("union.*select.*from")

    for start in range(0, 8_000, 77):
        assert costly.find("-" * start + "union select x from y") is not None
    assert costly.find("union" + "-" * 300 + "select from") is None


def test_expressions_are_bounded_together() -> None:
    """Many that are bearable by themselves are not, all of them on one text."""
    bearable = ["x.*y"] * 1_000

    with pytest.raises(ValueError, match="together") as caught:
        patterns(*bearable)
    assert caught.value.args[1] is None


def test_their_length_is_bounded_together() -> None:
    """Compiling takes time too."""
    with pytest.raises(ValueError, match="65536 characters together") as caught:
        patterns(*(f"[{n}]" + "a" * 900 for n in range(100)))
    assert caught.value.args[1] == 72


def test_the_cache_of_re_belongs_to_the_application() -> None:
    """A thousand expressions of ours push none of its own out."""
    re.purge()
    mine = re.compile("an expression of the application's")

    patterns(*(f"a[{n}]" for n in range(1_000)))

    assert re.compile("an expression of the application's") is mine
