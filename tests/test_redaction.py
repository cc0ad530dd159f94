"""Secrets: found under every spelling of a name and inside texts, in bounded work, on the wire."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardagent import SecurityEvent, SecurityMetric
from guardagent.encoding import Encoder, dumps_function
from guardagent.fields import Item, take_event, take_metric
from guardagent.redaction import ALWAYS_SENSITIVE, REDACTED, Redactor
from tests.support.strict import loads

DEFAULT_NAMES = ["authorization", "cookie", "x-api-key"]
BOUND = 1_024
MEBIBYTE = 1_048_576
SECRET = "s3cr3tVALUE"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
MARKER = "...[truncated, "

quickly = settings(max_examples=100, deadline=None, database=None)

KEY = "457dd84b-183e-4c26-9b40-1dc3b7bba90f"


def redactor(*names: str, bound: int = BOUND) -> Redactor:
    return Redactor(names or DEFAULT_NAMES, bound)


def taken(value: SecurityEvent | SecurityMetric) -> Item:
    """What a capture takes."""
    return take_event(value) if isinstance(value, SecurityEvent) else take_metric(value)


def wire(redactor: Redactor, encoder: str | None = None, **fields: Any) -> bytes:
    """The body that is sent for an event."""
    event = SecurityEvent(event_type="e", idempotency_key=KEY, **fields)
    return Encoder(redactor, 262_144, dumps_function(encoder)).record(taken(event), 0.0).body


@pytest.fixture
def no_hang() -> Iterator[None]:
    """Break off what would run for minutes: 8 s of this process's own time are far too many."""

    def give_up(*_: object) -> None:
        raise TimeoutError("the work is not bounded")

    former = signal.signal(signal.SIGVTALRM, give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, 8.0)
    yield
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
    signal.signal(signal.SIGVTALRM, former)


# -------------------------------------------------------------------------------------------- names

#: One name as it is met: header, environ, attribute, camelCase, form field, and what people do.
SPELLINGS = [
    "X-Plant-Id", "x-plant-id", "X-PLANT-ID", "x_plant_id", "HTTP_X_PLANT_ID", "xPlantId",
    "XPlantID", "X Plant Id", " X-Plant-Id ", "x.plant.id", "user[x_plant_id]", "user.x_plant_id",
    "x-plant-id[]",
    "user[x-plant-id][0]", "X-Plant-Id:",
]  # fmt: skip


@pytest.mark.parametrize("configured", ["X-Plant-Id", "x_plant_id", "xPlantId", "XPLANTID"])
@pytest.mark.parametrize("met", SPELLINGS)
def test_a_name_is_known_in_every_spelling(configured: str, met: str) -> None:
    """It does not matter how a name is written in the settings, and how in an event."""
    assert redactor(configured).hides(met)


@pytest.mark.parametrize("name", [*DEFAULT_NAMES, *ALWAYS_SENSITIVE])
def test_names_that_are_sensitive_by_default(name: str) -> None:
    """Credentials are known without any setting."""
    assert redactor().hides(name)
    assert redactor().hides(f"HTTP_{name.upper().replace('-', '_')}")


@pytest.mark.parametrize(
    "name", ["Set-Cookie", "Proxy-Authorization", "password", "apiKey", "access_token", "cookies"]
)
def test_credentials_are_hidden_whatever_is_configured(name: str) -> None:
    """The setting adds names; it does not take these away."""
    assert redactor("x-plant-id").hides(name)


@pytest.mark.parametrize(
    "name", ["X-Request-Id", "author", "http", "https", "endpoint", "", "-", "user", "x" * 100, "é"]
)
def test_ordinary_names_are_shown(name: str) -> None:
    """What is not known as sensitive is sent."""
    ours = redactor()

    assert not ours.hides(name)
    assert not ours.hides(name)


def test_sensitive_names_in_any_script() -> None:
    """A name without Latin letters hides itself and nothing else."""
    ours = redactor("пароль")

    assert ours.hides("Пароль")
    assert not ours.hides("имя")
    assert not ours.hides("-")


def test_names_met_are_not_remembered_for_ever() -> None:
    """Names may come from an attacker, who has as many as he likes."""
    ours = redactor()

    for number in range(20_000):
        ours.hides(f"name-{number}")
        ours.hides(f"name-{number}" + "x" * 10_000)

    assert 0 < len(ours.shown) <= 4_096
    assert max(map(len, ours.shown)) <= 64


# -------------------------------------------------------------------------------------------- trees


def leaf(_name: str, value: Any) -> Any:
    return value


def test_values_under_sensitive_names_are_hidden() -> None:
    """At every depth, whatever the value is."""
    tree = {
        "password": SECRET,
        "headers": {"Cookie": [SECRET], "Accept": "*/*"},
        "list": [{"deep": [{"X_API_KEY": {"value": SECRET}}]}, 7],
    }

    assert redactor().tree(tree, leaf) == {
        "password": REDACTED,
        "headers": {"Cookie": REDACTED, "Accept": "*/*"},
        "list": [{"deep": [{"X_API_KEY": REDACTED}]}, 7],
    }


def test_pairs_are_headers() -> None:
    """Headers may be a list of pairs, as ASGI and http.client have them."""
    tree = {"headers": [["Authorization", SECRET], [b"cookie", SECRET], ["accept", "*/*"]]}

    got = redactor().tree(tree, leaf)

    assert got["headers"] == [["Authorization", REDACTED], [b"cookie", REDACTED], ["accept", "*/*"]]


def test_each_leaf_is_asked_under_its_name() -> None:
    """What is not hidden goes through the given function; items of a list have no name."""
    seen: list[tuple[str, Any]] = []

    redactor().tree({"a": 1, "b": [2, {"c": 3}], "secret": 4}, lambda *args: seen.append(args))

    assert seen == [("a", 1), ("", 2), ("c", 3)]


def test_what_lies_too_deep_is_hidden() -> None:
    """Nobody looks into it, so nobody knows what is in it."""
    tree: Any = {"a": SECRET}
    for _ in range(20):
        tree = {"a": tree}

    got = json.dumps(redactor().tree(tree, leaf))

    assert SECRET not in got
    assert REDACTED in got


# -------------------------------------------------------------------------------------------- texts


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("password=s", "password=[REDACTED]"),
        ("/login?user=a&password=s&x=1#top", "/login?user=a&password=[REDACTED]&x=1#top"),
        ("/login?user[password]=s&x=1", "/login?user[password]=[REDACTED]&x=1"),
        ("a=1&access_token=s", "a=1&access_token=[REDACTED]"),
        ("https://user:s@host/path", "https://[REDACTED]@host/path"),
        ("redis://:s@host:6379/0", "redis://[REDACTED]@host:6379/0"),
        ("https://token@host/a@b", "https://[REDACTED]@host/a@b"),
        ("sent Bearer abc.def to", "sent Bearer [REDACTED] to"),
        ("Basic dXNlcjpwYXNz", "Basic [REDACTED]"),
        ("Cookie: a=b; c=d\r\nAccept: */*", "Cookie: [REDACTED]\r\nAccept: */*"),
        ('{"password": "s", "a": [1, null]}', '{"password":"[REDACTED]","a":[1,null]}'),
        ('[{"password": "s"}, "password=s"]', '[{"password":"[REDACTED]"},"password=[REDACTED]"]'),
        ('"password=s"', '"password=[REDACTED]"'),
        ('{"pass\\u0077ord": "s"}', '{"password":"[REDACTED]"}'),
        (' {"password": 5}', '{"password":"[REDACTED]"}'),
        (JWT, "[REDACTED]"),
    ],
)
def test_credentials_in_a_text_give_way(text: str, sent: str) -> None:
    """What is known to be a credential is masked, and what stands around it is kept."""
    assert redactor().text(text) == sent


@pytest.mark.parametrize(
    "text",
    [
        "", "a", "GET", "user@example.com", "a=b", "/search?q=1&page=2", "10:30", "key: value",
        "2026-11-22T12:00:00+00:00", "https://example.com/a?b=c#d", "http://[::1]:8000/",
        "C:\\temp",
        "Basic authentication required", "50% off", "a // b", '"quoted" text', "{not json}",
        "Mozilla/5.0 (X11; Linux x86_64)", "UNION SELECT * FROM users WHERE 1=1 --", "' OR 'a'='a",
        "<script>alert(1)</script>", "../../etc/passwd", "eyJust text", "[1, 2", '{"a":1}',
        " 1e5 ", "\t7",
    ],
)  # fmt: skip
def test_ordinary_texts_are_left_alone(text: str) -> None:
    """Also those of an attacker: an operator wants to read them."""
    ours = redactor()

    assert ours.text(text) == text
    assert ours.text(text) == text


QUOTED = json.dumps({"password": f"a{SECRET}"})
NESTED = json.dumps({"a": QUOTED})
TWICE_NESTED = json.dumps({"b": NESTED})

#: Texts that hold the secret in a form that is known.
LEAKS = {
    # Assignments and query strings
    "assignment": f"password={SECRET}",
    "colon": f"password: {SECRET}",
    "colon without space": f"password:{SECRET}",
    "colon behind a digit": f"user.password.1:{SECRET}",
    "spaces": f"password  =  {SECRET}",
    "tab": f"password:\t{SECRET}",
    "arrow": f"'password' => '{SECRET}'",
    "percent": f"password%3D{SECRET}",
    "header form": f"X-Api-Key: {SECRET}",
    "environ form": f"HTTP_X_API_KEY={SECRET}",
    "camelCase": f"xApiKey={SECRET}",
    "query": f"/login?a=b&password={SECRET}&c=d",
    "query at the end": f"/login?password={SECRET}",
    "comma in a query": f"/x?password=abc,{SECRET}",
    "semicolon in a query": f"/x?password=abc;{SECRET}",
    "quote in a query": f"/x?password=abc'{SECRET}",
    "double quote in a query": f'/x?password=abc"{SECRET}',
    "angle in a query": f"/x?password=abc<{SECRET}",
    "bracket": f"/x?user[password]={SECRET}",
    "encoded bracket": f"/x?user%5Bpassword%5D={SECRET}",
    "numbered": f"/x?password[0]={SECRET}",
    "dotted": f"/x?user.password={SECRET}",
    "form": f"user=a&password=b+{SECRET}",
    "twice": f"password=a&password={SECRET}",
    # Quotes
    "double quotes": f'password="a b {SECRET}"',
    "single quotes": f"password='a b {SECRET}'",
    "escaped quote": f'password="a\\"{SECRET}"',
    "repr of a dict": repr({"password": f"a b {SECRET}"}),
    "repr with a quote": repr({"password": f"it's {SECRET}"}),
    "repr with both quotes": repr({"password": f"it's \"{SECRET}"}),
    "repr without space": f"{{'password':'{SECRET}'}}",
    "repr of bytes": repr({b"password": SECRET.encode()}),
    "unquoted with a quote": f"password: abc'{SECRET}",
    "unquoted with a double quote": f'password: abc"{SECRET}',
    "unquoted with a brace": f"password: abc}}{SECRET}",
    "unterminated": f'x {{"user": "x", "password": "a b {SECRET}',
    "repr of pairs": "headers: " + repr([(b"authorization", SECRET.encode())]),
    # JSON
    "json": QUOTED,
    "json in a json": NESTED,
    "json in a json in a json": TWICE_NESTED,
    "json in a text": f"body {QUOTED} end",
    "json in a json in a text": f"body {NESTED} end",
    "json in a json in a json in a text": f"body {TWICE_NESTED} end",
    "json with a tail": f"{QUOTED} x",
    "json list in a text": f'body {{"password": ["{SECRET}", "{SECRET}"]}}',
    "json object in a text": f'body {{"password": {{"value": "{SECRET}"}}}}',
    "json with escaped quote in a text": f'x {{"password": "a\\"{SECRET}"}}',
    "json pairs": json.dumps([["Authorization", SECRET], ["Accept", "*/*"]]),
    "json key": json.dumps({f"https://user:{SECRET}@host/": 1}),
    "json with spaces around": f" \n{QUOTED} ",
    "json too large for its structure": json.dumps({"password": SECRET, "pad": "x" * 9_000}),
    "json list too large": json.dumps({"password": [SECRET], "pad": "x" * 9_000}),
    "json beyond integers": f'{{"password": "{SECRET}", "n": {"9" * 5_000}}}',
    # Headers
    "bearer": f"Bearer {SECRET}",
    "bearer in capitals": f"BEARER {SECRET}",
    "bearer in any case": f"bEaReR {SECRET}",
    "bearer tab": f"Bearer\t{SECRET}",
    "bearer spaces": f"Bearer          {SECRET}",
    "bearer plus": f"/x?a=Bearer+{SECRET}",
    "bearer plus alone": f"/x/Bearer+{SECRET}",
    "bearer wide space": f"Bearer\u2003{SECRET}",
    "basic ideographic space": f"Basic\u3000{SECRET}",
    "bearer percent": f"/x?a=Bearer%20{SECRET}",
    "bearer in quotes": f'Bearer "{SECRET}"',
    "bearer twice": f"Bearer Bearer {SECRET}",
    "bearer and a name": f"Bearer token: {SECRET}",
    "bearer and an assignment": f"bearer password=a,{SECRET}",
    "basic and an assignment": f"basic password1=x password=a,{SECRET}",
    "basic and a line": f"basic \npassword={SECRET}",
    "encoded address": f"/x?next=https%3A%2F%2Fuser%3A{SECRET}%40host%2F",
    "encoded query": f"/x?next=%2Flogin%3Ftoken%3D{SECRET}",
    "encoded name": f"/x?pass%77ord={SECRET}",
    "authorization": f"Authorization: Token {SECRET}",
    "authorization without space": f"Authorization:Token {SECRET}",
    "authorization assigned": f"authorization=Token {SECRET}",
    "digest": f"Authorization: Digest username=a, response={SECRET}",
    "cookie": f"Cookie: a=b; session={SECRET}",
    "cookie assigned": f"HTTP_COOKIE=a=b; session={SECRET}",
    "set-cookie": f"Set-Cookie: session={SECRET}; Path=/",
    "private key in one line": f"-----BEGIN RSA PRIVATE KEY----- {SECRET}",
    # Addresses
    "userinfo": f"https://user:{SECRET}@host/",
    "userinfo without user": f"redis://:{SECRET}@host/",
    "userinfo without password": f"https://{SECRET}@host/",
    "userinfo with an at": f"https://user:p@{SECRET}@host/",
    "userinfo without scheme": f"//user:{SECRET}@host/",
    "second userinfo": f"https://a:b@c/ then ftp://d:{SECRET}@e/",
}


@pytest.mark.parametrize("text", LEAKS.values(), ids=LEAKS)
def test_no_text_gives_a_secret_away(text: str) -> None:
    """Each form in which a credential is met is recognised, on its own and among other words."""
    ours = redactor()

    assert SECRET in text
    assert SECRET not in ours.text(text)
    assert SECRET not in ours.text(f"a request with {text}")


@pytest.mark.parametrize("encoder", ["orjson", "json"])
@pytest.mark.parametrize("text", LEAKS.values(), ids=LEAKS)
def test_no_secret_is_on_the_wire(text: str, encoder: str) -> None:
    """The bytes that are sent are searched, whichever field the text was in."""
    places: list[dict[str, Any]] = [
        {name: text} for name in ("reason", "endpoint", "user_agent", "pattern_matched", "method")
    ]
    places += [{"metadata": {"a": text}}, {"metadata": {"a": [{"b": (text,)}]}}]
    places += [{"extra": {"a": text}}, {"metadata": {"a": text.encode()}}]
    places += [{"metadata": {"a": ValueError(text)}}, {"metadata": {"a": {text}}}]

    for place in places:
        body = wire(redactor(), encoder, **place)

        assert SECRET.encode() not in body, place
        loads(body)


#: The secret in a structure.
TREES = {
    "name": {"password": SECRET},
    "header": {"X-Api-Key": SECRET},
    "environ": {"environ": {"HTTP_X_API_KEY": SECRET}},
    "attribute": {"x_api_key": SECRET},
    "camelCase": {"xApiKey": SECRET},
    "bytes": {b"Authorization": SECRET},
    "nested": {"a": [{"b": ({"password": SECRET},)}]},
    "list": {"password": [SECRET]},
    "object": {"password": {"value": SECRET}},
    "number": {"a": {"password": 123456789}},
    "asgi headers": {"headers": [(b"authorization", SECRET.encode())]},
    "pairs": {"headers": [["Authorization", SECRET]]},
    "cookies": {"cookies": {"session": SECRET}},
    "form field": {"user[password]": SECRET},
    "form list": {"password[]": SECRET},
    "numbered": {"password[0]": SECRET},
    "name as a key": {f"password={SECRET}": 1},
    "bearer as a key": {f"Bearer {SECRET}": 1},
    "address as a key": {f"https://user:{SECRET}@host/": 1},
    "body as a key": {QUOTED: ""},
    "bytes as a key": {f"password={SECRET}".encode(): 1},
    "tuple as a key": {("a", f"password={SECRET}"): 1},
    "deep": {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"password": SECRET}}}}}}}},
}


@pytest.mark.parametrize("encoder", ["orjson", "json"])
@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_no_secret_in_a_structure_is_on_the_wire(tree: dict[Any, Any], encoder: str) -> None:
    """In metadata, in extra fields and in the tags of a metric."""
    metric = SecurityMetric(
        metric_type="block_rate",
        value=1,
        tags=tree,
        idempotency_key=KEY,
    )
    encode = Encoder(redactor(), 262_144, dumps_function(encoder)).record

    bodies = [
        wire(redactor(), encoder, metadata=tree),
        wire(redactor(), encoder, metadata={"a": [tree], "b": 1}),
        wire(redactor(), encoder, extra=tree),
        encode(taken(metric), 0.0).body,
    ]

    for body in bodies:
        assert SECRET.encode() not in body
        assert b"123456789" not in body
        assert REDACTED.encode() in body
        loads(body)


def test_the_setting_decides_what_is_hidden() -> None:
    """`sensitive_headers` is obeyed in structures and in texts."""
    fields = {"metadata": {"X-Plant-Id": "green"}, "reason": "x_plant_id=green"}

    assert wire(redactor(), **fields).count(b"green") == 2
    assert wire(redactor("x-plant-id"), **fields).count(b"green") == 0


# ------------------------------------------------------------------------------------------- length

CHARACTERS = {"one byte": "x", "two bytes": "é", "three bytes": "€", "four bytes": "😀"}


@pytest.mark.parametrize("shift", range(4))
@pytest.mark.parametrize("character", CHARACTERS.values(), ids=CHARACTERS)
@pytest.mark.parametrize("bound", [16, 100, BOUND])
def test_a_long_text_is_cut_between_characters(character: str, shift: int, bound: int) -> None:
    """The bound is in bytes; what remains is whole, and the marker tells how long it was."""
    text = "a" * shift + character * 5_000

    sent = redactor(bound=bound).text(text)

    kept, marker, count = sent.partition(MARKER)
    assert text.startswith(kept)
    assert bound - 4 < len(kept.encode()) <= bound
    assert marker + count == f"...[truncated, {len(text)} characters]"


@pytest.mark.parametrize("character", CHARACTERS.values(), ids=CHARACTERS)
@pytest.mark.parametrize("bound", [16, 100, BOUND])
def test_a_text_that_just_fits_is_not_cut(character: str, bound: int) -> None:
    """Up to the bound nothing is taken away."""
    size = len(character.encode())
    text = "a" * (bound % size) + character * (bound // size)

    assert len(text.encode()) == bound
    assert redactor(bound=bound).text(text) == text
    assert (
        redactor(bound=bound).text(text + "a")
        == f"{text}...[truncated, {len(text) + 1} characters]"
    )


@pytest.mark.parametrize(
    "text",
    [
        "password=" + "x" * 3_000 + "&" + "tail " * 3_000,
        "password: " + "x" * 3_000 + "\n" + "tail " * 3_000,
        "Bearer " + "x" * 9_000 + " tail",
        "https://u:" + "x" * 9_000 + "@host/tail",
    ],
)
def test_what_is_lost_behind_a_secret_is_told(text: str) -> None:
    """A text that is short because a secret was masked still says that it was cut."""
    assert redactor().text(text).endswith(f"{MARKER}{len(text)} characters]")


def test_the_setting_decides_what_is_kept() -> None:
    """`max_payload_size` is obeyed in fields, structures and extra fields, in one cut only."""
    text = "x=" + "y" * 4_998
    fields: dict[str, Any] = {
        "reason": text,
        "metadata": {"a": text, "b": [text]},
        "extra": {"c": text},
    }

    for bound in (100, 1_024):
        sent = loads(wire(redactor(bound=bound), **fields))

        expected = text[:bound] + f"{MARKER}5000 characters]"
        assert sent["reason"] == expected
        assert sent["metadata"] == {"a": expected, "b": [expected]}
        assert sent["c"] == expected


@pytest.mark.parametrize("form", ["password={}", '{{"password": "{}"}}', "Bearer {}", "a://u:{}@h"])
@pytest.mark.parametrize("length", [11, 500, 3_000])
def test_a_secret_that_is_cut_in_two_is_still_hidden(form: str, length: int) -> None:
    """Wherever a bound falls, also the bound of what is searched."""
    secret = ("s3cr3t" * 1_000)[:length]

    for start in (0, *range(BOUND - 30, BOUND + 5), *range(2 * BOUND - 30, 2 * BOUND + 5)):
        sent = redactor().text("x" * start + " " + form.format(secret))

        assert "s3c" not in sent, start


@pytest.mark.parametrize("pad", [10, 50, 200])
def test_a_cut_secret_that_moves_forward_is_hidden(pad: int) -> None:
    """Masking makes a text shorter, and brings what was searched last into sight."""
    before = f"password={'p' * pad}&a=b&" * (2 * BOUND // (pad + 14))

    for trim in range(60):
        text = before[trim:] + "https://user:s3cr3tVALUE@host/" + "x" * 5_000

        assert "s3c" not in redactor().text(text)


# ------------------------------------------------------------------------------------------ unicode


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("\ud800", "\ufffd"),
        ("a\udfffb", "a\ufffdb"),
        ("😀", "😀"),
        ('{"a": "\\ud800"}', '{"a":"\ufffd"}'),
        ('{"\\ud800": 1}', '{"\ufffd":1}'),
    ],
)
def test_half_a_character_is_replaced(text: str, sent: str) -> None:
    """A lone surrogate cannot be written in UTF-8."""
    assert redactor().text(text) == sent


anything = st.text(st.characters(exclude_categories=[]), max_size=300)
fragments = st.sampled_from(
    [
        "password", "=", ":", " ", '"', "'", "\\", "{", "[", "}", "]", ",", "://", "@", "Bearer ",
        "%3D", "basic ", "eyJ", ".", "\ud800", "😀", "\n", "x" * 40, "&", '{"a":', "\\u0041",
    ]
)  # fmt: skip
hostile = st.lists(fragments | anything, max_size=30).map("".join)


@quickly
@given(hostile, st.sampled_from([16, 64, BOUND]))
def test_every_text_can_be_sent(text: str, bound: int) -> None:
    """Whatever a text holds, the result is valid Unicode of bounded size."""
    sent = redactor(bound=bound).text(text)

    assert len(sent.encode("utf-8")) <= bound + len(f"{MARKER}{len(text)} characters]")


@quickly
@given(hostile, st.sampled_from(["password={}", "Bearer {}", "x://u:{}@h/", '{{"secret": "{}"}}']))
def test_a_secret_on_a_line_of_its_own_is_hidden(around: str, form: str) -> None:
    """Nothing that an attacker writes before or behind it makes a credential visible."""
    line = form.format(SECRET)

    assert SECRET not in redactor().text(f"{around}\n{line}")
    assert SECRET not in redactor().text(f"{line}\n{around}")


@quickly
@given(hostile, st.sampled_from(["orjson", "json"]), st.sampled_from([16, BOUND]))
def test_every_way_to_the_wire_hides_the_same(text: str, encoder: str, bound: int) -> None:
    """A text is looked into where it must be, whether its event is encoded quickly or with care."""
    ours = redactor(bound=bound)

    quick = loads(wire(ours, encoder, reason=text))["reason"]
    flat = loads(wire(ours, encoder, metadata={"a": text}))["metadata"]["a"]
    careful = loads(wire(ours, encoder, reason=text, extra={"a": [text]}))

    assert quick == flat == careful["reason"] == careful["a"][0]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@quickly
@given(json_values)
def test_json_in_a_text_stays_json(value: Any) -> None:
    """A document in a text is still one after it was redacted, if it was not too long."""
    sent = redactor(bound=MEBIBYTE).text(json.dumps([value]))

    assert isinstance(json.loads(sent), list)


# ------------------------------------------------------------------------------------- bounded work

#: What keeps careless patterns busy, repeated.
TRAPS = {
    "letters": ("=", "a"), "equals": ("", "="), "assignments": ("", "a="),
    "sensitive": ("", "password="),
    "open quotes": ("", 'password="'), "open apostrophes": ("", "password='"),
    "escaped quotes": ("", 'password=\\"'), "escapes": ("password=", "\\"),
    "quoted escapes": ('password="', "\\"), "braces": ("", "password: }"), "schemes": ("@", "://"),
    "open userinfo": ("=://", "a"), "userinfo": ("", "://a:"), "ats": ("://", "@"),
    "slashes": ("@", "//a"),
    "bearer": ("", "bearer "), "bearer plus": ("=", "bearer+"), "basic": ("", "basic "),
    "basic plus": ("=", "basic+"), "basic letters": ("basic ", "a"),
    "basic slashes": ("basic ", "basic/"),
    "spaces": ("password", " "), "words and spaces": ("=", "a        "), "dots": ("=", "."),
    "tokens": ("=", "eyJaaaaa-"), "tokens with dots": ("=", "eyJaaaaa."), "brackets": ("=", "a["),
    "closed brackets": ("=", "a[b][c][d][e]"), "open json": ("", "["), "open strings": ("", '"'),
    "half characters": ("=", "\ud800"), "percent": ("", "password%3D"), "encoded": ("=", "%5B"),
    "commas": ("", "'a' , "), "lines": ("", "password:\n"), "digits": ("[", "9"),
}  # fmt: skip


@pytest.mark.parametrize(("start", "trap"), TRAPS.values(), ids=TRAPS)
def test_hostile_text_takes_bounded_work(start: str, trap: str, no_hang: None) -> None:
    """At the largest bound that can be set, no text takes more than its length is worth."""
    text = (start + trap * 300_000)[:300_000]

    sent = redactor(bound=MEBIBYTE).text(text)

    assert len(sent) <= 2 * len(text)


@pytest.mark.parametrize(("start", "trap"), TRAPS.values(), ids=TRAPS)
def test_a_huge_text_is_not_searched_whole(start: str, trap: str, no_hang: None) -> None:
    """Of 20 million characters only what is kept, and a little more, is looked at."""
    text = start + trap * (20_000_000 // len(trap))

    assert len(redactor().text(text)) <= BOUND + 64


def test_an_event_full_of_traps_takes_bounded_work(no_hang: None) -> None:
    """A thousand hostile texts, each as long as is ever looked at."""
    traps = [(start + trap * 9_000)[:8_192] for start, trap in TRAPS.values()]
    texts = random.Random(1).choices(traps, k=900)

    body = wire(redactor(), metadata={"texts": texts})

    assert len(body) <= 262_144


def nested_json(depth: int) -> str:
    text = SECRET
    for _ in range(depth):
        text = json.dumps([text])
    return text


@pytest.mark.parametrize("depth", [20, 100, 300, 450, 600, 800, 950, 2_000, 4_000])
@pytest.mark.parametrize("form", ["[{}]", '{{"a":{}}}', '[[{{"a":{}}}]]'])
def test_deep_json_does_not_cost_the_event(form: str, depth: int, no_hang: None) -> None:
    """However deep a document in a text is, and whether a reader can follow it or not."""
    head, tail = form.format("\0").split("\0")
    text = (
        head * (depth // len(head)) + json.dumps({"password": SECRET}) + tail * (depth // len(head))
    )

    body = wire(redactor(), reason=text, metadata={"a": text})

    assert SECRET.encode() not in body


@pytest.mark.parametrize(
    "text",
    [
        "[" * 8_000,
        "[" * 4_000 + "]" * 4_000,
        '{"a":' * 1_500 + "1" + "}" * 1_500,
        nested_json(10),
        nested_json(12),
        json.dumps([json.dumps(["{}"] * 100)] * 15),
        json.dumps({str(n): "[1]" for n in range(500)}),
        "[" + "9" * 8_000 + "]",
        "[1e999, NaN, -Infinity]",
    ],
    ids=["open", "deep", "deep objects", "nested", "deeper", "wide", "keys", "digits", "infinite"],
)
def test_json_bombs_take_bounded_work(text: str, no_hang: None) -> None:
    """A document in a text is followed only so deep, and never makes the event fail."""
    body = wire(redactor(), reason=text)

    assert len(body) < 16 * BOUND
    loads(body)


def test_json_that_is_nested_too_deeply_is_hidden() -> None:
    """A secret at the bottom of texts in texts in texts is not followed to the end, but masked."""
    text = json.dumps({"password": SECRET})
    while len(json.dumps([text])) < 8_192:
        text = json.dumps([text])

    assert SECRET not in redactor(bound=MEBIBYTE).text(text)
