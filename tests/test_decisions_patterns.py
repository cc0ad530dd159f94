"""Regular expressions from outside: which are refused, and what the others may cost."""

from __future__ import annotations

import itertools
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardagent.patterns import Patterns
from tests.ordinary_rules import ORDINARY

WINDOWS = (2048, 1024, 512, 256, 128)
#: Seconds of the processor; far beyond what anything that is taken may take.
PATIENCE = 20.0


def patterns(*sources: str, windows: Sequence[int] = WINDOWS, texts: int = 1) -> Patterns:
    return Patterns(sources, text_max=8192, windows=windows, texts=texts)


@contextmanager
def bounded() -> Iterator[None]:
    """End what takes more of the processor than anybody has; the engine looks for signals."""

    def end(*_signal: object) -> None:
        raise TimeoutError("the search did not come to an end")

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


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
        r"(?:\A|x)(?:(a)|\b(a))+x",
        r"\A(?:(a)|(?:a(?=a)))+x",
    ],
)
def test_catastrophic_expressions_are_refused(source: str) -> None:
    """Those that are exponential, and those of a high power on a text of this length."""
    with pytest.raises(ValueError, match="does not backtrack for long"):
        patterns(source)


#: Pairs of parts that look apart and share a character: by its case, or by ASCII's idea of it.
_ALIKE = [
    *("i\u0131", "i\u0130", "k\u212a", "s\u017f", "\xb5\u03bc", "\xff\u0178", "\xdf\u1e9e"),
    *("\xe5\u212b", "\xe9\xc9", "\u03c3\u03c2", "\u0345\u03b9", "\u0345\u1fbe", "\u2160\u2170"),
    *(
        ("[\u0100-\u0200]", "s"),
        ("[@-Z]", "\u017f"),
        ("[@-Z]", "\u212a"),
        ("[\xa0-\xb8]", "\u03bc"),
    ),
    *(
        ("[\u0370-\u03ff]", "\xb5"),
        (r"(?a:\W)", "\xe9"),
        (r"(?a:\D)", "\u0661"),
        (r"(?a:\S)", "\xa0"),
    ),
    *((r"(?a:[^\w])", "\xe9"), (r"(?a:\s)", r"\s"), ("[^\xd7]", "\xf7"), ("(?-i:[^k])", "K")),
    *(
        ("(?a:[^k])", "\u212a"),
        ("[^\u0416]", "\u0417"),
        (r"[^\u0416]", r"\w"),
        (r"\w", "[\u0300-\u0400]"),
    ),
]


@pytest.mark.parametrize(("one", "other"), _ALIKE, ids=map(ascii, _ALIKE))
@pytest.mark.parametrize("start", [r"\A/", "/admin/login/", r"(?a:\b)x"])
def test_alternatives_that_are_alike_are_refused(start: str, one: str, other: str) -> None:
    """With a loop around them each character can be taken in two ways."""
    with pytest.raises(ValueError, match="does not backtrack for long"):
        patterns(f"{start}(?:({one})|({other}))+x")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *("kl", "k\u0131", "\xd7\xf7", "\u212a\u212b"),
        *(
            (r"\w", r"\W"),
            (r"\d", "[a-z]"),
            ("[a-z]", "[^a-z]"),
            ("k", "[^k]"),
            (r"[\W\d]", "[a-z]"),
        ),
        *(("[^\u212a]", "k"), ("(?-i:k)", "(?-i:K)"), ("(?a:k)", "\u017f")),
    ],
    ids=ascii,
)
def test_alternatives_that_share_nothing_are_taken(one: str, other: str) -> None:
    """What is told of a set is not too much either."""
    assert patterns(f"/(?:({one})|({other}))+") is not None


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
_PARTS = ["a", "b", ".", r"\w", r"\s", "[ab]", "(a|b)", "(a|ab)", "(?:ab)", "(?:a|b?)", " ", "[^k]"]
_PARTS += [
    "k",
    "\u212a",
    "s",
    "\u017f",
    "\xe9",
    r"(?a:\W)",
    r"\W",
    "[@-Z]",
    r"\b",
    "^",
    "$",
    "(?=a)",
]
_SINGLE = ["a", "k", "\u212a", "s", "\u017f", "\xe9", r"(?a:\W)", "[@-Z]", r"\d"]
_TIMES = ["", "*", "+", "?", "{2,9}", "*?"]


@st.composite
def expressions(draw: st.DrawFn) -> str:
    def part(depth: int) -> str:
        inner = draw(st.sampled_from(_PARTS))
        if draw(st.integers(0, 3)) == 0:
            one, other = draw(st.sampled_from(_SINGLE)), draw(st.sampled_from(_SINGLE))
            inner = f"(?:({one})|({other}))"
        if depth and draw(st.booleans()):
            joint = draw(st.sampled_from(["", "|"]))
            inner = f"(?:{part(depth - 1)}{joint}{part(depth - 1)})"
        # Of several marks in a row Python warns, and a loop over one is none.
        return inner + (draw(st.sampled_from(_TIMES)) if inner not in ("^", "$", r"\b") else "")

    start = draw(st.sampled_from(["", r"\A", "x", "/admin"]))
    parts = "".join(part(2) for _ in range(draw(st.integers(1, 3))))
    return start + parts + draw(st.sampled_from("xb"))


def _texts(alphabet: str, most: int) -> Iterator[str]:
    for count in range(1, most + 1):
        for units in itertools.product(alphabet, repeat=count):
            yield ("".join(units) * 256)[:255] + "-"


#: Texts on which the parts above go wrong, if anything does; nothing ends in what is looked for.
_TEXTS = [*_texts("ab ", 3), *_texts("ak\u212as\u017f\xe9\n", 2)]


@given(expressions())
def test_what_is_taken_comes_to_an_end(source: str) -> None:
    """On texts made to its measure, behind whatever it begins with."""
    try:
        taken = patterns(source)
    except ValueError:
        return

    with bounded():
        found = {taken.find(start + text) for text in _TEXTS for start in ("", "x", "/admin")}
    assert found <= {None, source}


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


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("(" * 200 + "a" + ")" * 200, None),
        ("(?:" * 30 + "a" + "b|c.)*" * 30, "not nested deeper than 20 levels"),
        ("(?:" * 90 + "a" + "|b.)" * 90, "not nested deeper than 20 levels"),
        ("a{99999999999}", r"a regular expression \((?:OverflowError|.*repetition number)"),
    ],
)
def test_nested_expressions(source: str, reason: str | None) -> None:
    """Groups alone are looked through; loops and alternatives within each other are bounded."""
    if reason is None:
        assert patterns(source).find("bab") == source
        return
    with pytest.raises(ValueError, match=reason):
        patterns(source)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.11 brought them")
def test_what_does_not_backtrack() -> None:
    """Atomic groups and possessive loops are taken where the others are not."""
    assert patterns("x(?>a*)b").find("xaab")
    assert patterns(r"x\s*+\s*+\s*+y").find("x  y")


def test_ordinary_expressions_are_taken_together() -> None:
    """Some hundreds of them, as they are in use, for three texts of each request."""
    together = patterns(*ORDINARY, windows=(8192, *WINDOWS), texts=3)

    assert len(ORDINARY) > 250
    assert together.find("/search?q=shoes&page=2&sort=price") is None
    assert together.find("/?id=1 union all select null from users") is not None


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("[ab]*x{}q", "a"),
        ("a.*x{}q", "a"),
        (r"[\r\n]\s*(?:a|b)x{}", "\n"),
        ("(?:a|b{}c)+x", "a"),
        ("(?:a|b){{0,7}}c[{}x]", "a"),
        ("aaaaaaaaaaaaaaa[b{}]", "a"),
    ],
)
def test_many_expressions_come_to_an_end(source: str, text: str) -> None:
    """As many as are taken, on the text that is worst for all of them, three times."""
    count, taken = 0, patterns()
    while count < 1_000:
        count += max(1, count // 4)
        try:
            taken = patterns(*(source.format(number) for number in range(count)), texts=3)
        except ValueError:
            break

    assert taken
    with bounded():
        assert [taken.find(text * 8192) for _ in range(3)] == [None] * 3


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


@pytest.mark.parametrize(
    "sources",
    [
        ["[\x00-\uffff]" * 190],
        ["[^\u0100-\uffff]"] * 40,
        ["[\u0416\u0417]" * 100] * 30,
        ["|".join(f"{chr(0x4E00 + number)}." for number in range(330))] * 40,
    ],
)
def test_what_takes_long_to_be_made_ready_is_refused(sources: list[str]) -> None:
    """It is told from its parts before anything is done for it."""
    with pytest.raises(ValueError, match=r"smaller ranges, or fewer \|"), bounded():
        patterns(*sources)


def test_the_cache_of_re_belongs_to_the_application() -> None:
    """A thousand expressions of ours push none of its own out."""
    re.purge()
    mine = re.compile("an expression of the application's")

    patterns(*(f"a[{n}]" for n in range(1_000)))

    assert re.compile("an expression of the application's") is mine
