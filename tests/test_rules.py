"""Reading the rules document: every key of WIRE.md 7, what it may hold, and what refuses it."""

from __future__ import annotations

import datetime as dt
import json
import pickle
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardagent import DynamicRules, GuardAgentError
from guardagent.errors import RulesError

NOON = dt.datetime(2027, 1, 15, 8, 0, tzinfo=dt.timezone.utc)

DEFAULTS: dict[str, Any] = {
    "rule_id": "default-rule",
    "version": 1,
    "expires_at": None,
    "ttl": 300,
    "ip_blacklist": [],
    "ip_whitelist": [],
    "ip_ban_duration": 3600,
    "blocked_countries": [],
    "whitelist_countries": [],
    "blocked_cloud_providers": set(),
    "blocked_user_agents": [],
    "suspicious_patterns": [],
    "global_rate_limit": None,
    "global_rate_window": None,
    "endpoint_rate_limits": {},
    "enable_penetration_detection": None,
    "enable_ip_banning": None,
    "enable_rate_limiting": None,
    "enable_rate_limit_auto_ban": None,
    "auto_ban_threshold": None,
    "auto_ban_duration": None,
    "emergency_mode": False,
    "emergency_whitelist_only": False,
    "emergency_whitelist": [],
    "message": None,
}

#: As the backend writes it, and as it is read.
WRITTEN: dict[str, Any] = {
    "rule_id": "prod-7",
    "version": 7,
    "timestamp": "2027-01-15T08:00:00+00:00",
    "expires_at": "2027-01-15T08:00:00Z",
    "ttl": 60,
    "ip_blacklist": ["203.0.113.9", "2001:db8::/32"],
    "ip_whitelist": ["198.51.100.1"],
    "ip_ban_duration": 900,
    "blocked_countries": ["XX"],
    "whitelist_countries": ["YY"],
    "blocked_cloud_providers": ["GCP", "AWS"],
    "blocked_user_agents": ["sqlmap"],
    "suspicious_patterns": ["(?i)union select"],
    "global_rate_limit": 100,
    "global_rate_window": 60,
    "endpoint_rate_limits": {"/login": [5, 60]},
    "enable_penetration_detection": True,
    "enable_ip_banning": False,
    "enable_rate_limiting": True,
    "enable_rate_limit_auto_ban": False,
    "auto_ban_threshold": 10,
    "auto_ban_duration": 600,
    "emergency_mode": True,
    "emergency_whitelist_only": True,
    "emergency_whitelist": ["192.0.2.1"],
    "message": "under attack",
}
READ = {
    **WRITTEN,
    "timestamp": NOON,
    "expires_at": NOON,
    "blocked_cloud_providers": {"AWS", "GCP"},
    "endpoint_rate_limits": {"/login": (5, 60)},
}

WHOLE = ["version", "ttl", "ip_ban_duration"]
WHOLE_OR_NONE = [
    "global_rate_limit",
    "global_rate_window",
    "auto_ban_threshold",
    "auto_ban_duration",
]
FLAGS = ["emergency_mode", "emergency_whitelist_only"]
FLAGS_OR_NONE = [
    "enable_penetration_detection",
    "enable_ip_banning",
    "enable_rate_limiting",
    "enable_rate_limit_auto_ban",
]
LISTS = [
    "ip_blacklist",
    "ip_whitelist",
    "blocked_countries",
    "whitelist_countries",
    "blocked_cloud_providers",
    "blocked_user_agents",
    "suspicious_patterns",
    "emergency_whitelist",
]


def read(document: dict[str, Any]) -> DynamicRules:
    """Read a document that has been JSON, as every one has."""
    return DynamicRules.from_mapping(json.loads(json.dumps(document)))


def refusal(document: Any) -> str:
    with pytest.raises(RulesError) as caught:
        DynamicRules.from_mapping(document)
    return str(caught.value)


# -- the whole -----------------------------------------------------------------------------------


def test_tables_of_this_module_are_complete() -> None:
    """No field is missing from what is tested here."""
    fields = [field.name for field in attrs.fields(DynamicRules)]

    assert sorted(fields) == sorted([*DEFAULTS, "timestamp"])
    assert sorted(fields) == sorted(WRITTEN)


def test_defaults() -> None:
    """What a document does not say is as WIRE.md 7 has it; the time is now."""
    before = dt.datetime.now(dt.timezone.utc)
    rules = read({"rule_id": "default-rule"})
    after = dt.datetime.now(dt.timezone.utc)

    assert {name: getattr(rules, name) for name in DEFAULTS} == DEFAULTS
    assert before <= rules.timestamp <= after


def test_defaults_are_of_the_documented_types() -> None:
    """A set stays a set: the Guard libraries subtract from it."""
    rules = DynamicRules()

    assert {name: type(getattr(rules, name)) for name in DEFAULTS} == {
        name: type(value) for name, value in DEFAULTS.items()
    }


@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_each_field_is_read(name: str) -> None:
    """By itself, with the value and the type it shall have."""
    value = getattr(read({name: WRITTEN[name]}), name)

    assert (value, type(value)) == (READ[name], type(READ[name]))


def test_a_full_document() -> None:
    """All fields together."""
    assert attrs.asdict(read(WRITTEN), recurse=False) == READ


def test_unknown_keys_are_ignored() -> None:
    """A newer backend may say more."""
    rules = read({"rule_id": "r", "version": 2, "quantum_mode": {"on": [1]}, "": None})

    assert (rules.rule_id, rules.version) == ("r", 2)
    assert not hasattr(rules, "quantum_mode")


def test_keys_that_are_no_text_are_ignored() -> None:
    """A mapping need not come from JSON."""
    document: Any = {1: 2, None: 3, "version": 4}

    assert DynamicRules.from_mapping(document).version == 4


def test_any_mapping_will_do() -> None:
    """And it is not changed."""
    document = MappingProxyType({"version": 3})

    assert DynamicRules.from_mapping(document).version == 3


@pytest.mark.parametrize("document", [None, [], "rules", 7, [("version", 1)], b"{}"])
def test_what_is_no_mapping_is_refused(document: Any) -> None:
    """It says what was given."""
    assert "rules: given" in refusal(document)


def test_an_error_is_a_value_error_of_ours() -> None:
    """An application may catch either."""
    with pytest.raises(RulesError) as caught:
        DynamicRules.from_mapping({"version": "x"})

    assert isinstance(caught.value, (GuardAgentError, ValueError))
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), RulesError)


def test_rules_cannot_be_changed() -> None:
    """They are replaced as a whole."""
    rules = DynamicRules()

    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        rules.version = 2  # type: ignore[misc]


def test_rules_do_not_share_their_lists() -> None:
    """Two documents without a list have two empty ones."""
    one, other = DynamicRules(), DynamicRules()

    one.ip_blacklist.append("203.0.113.9")
    one.blocked_cloud_providers.add("AWS")
    one.endpoint_rate_limits["/"] = (1, 1)

    assert (other.ip_blacklist, other.blocked_cloud_providers) == ([], set())
    assert other.endpoint_rate_limits == {}


def test_rules_do_not_share_with_their_document() -> None:
    """Changing the document afterwards changes nothing in force."""
    document: dict[str, Any] = {"ip_blacklist": ["::1"], "endpoint_rate_limits": {"/": [1, 2]}}
    rules = DynamicRules.from_mapping(document)

    document["ip_blacklist"].append("::2")
    document["endpoint_rate_limits"]["/"][0] = 9

    assert rules.ip_blacklist == ["::1"]
    assert rules.endpoint_rate_limits == {"/": (1, 2)}


# -- lax reading ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*WHOLE, *WHOLE_OR_NONE])
@pytest.mark.parametrize(
    ("given_", "read_"),
    [("20", 20), (" 20 ", 20), ("+2_0.00", 20), (20.0, 20), (20, 20), (2**40, 2**40), (True, 1)],
)
def test_whole_numbers(name: str, given_: Any, read_: int) -> None:
    """As text and as a float without fraction too; what is read is an int and no bool."""
    value = getattr(read({name: given_}), name)

    assert (value, type(value)) == (read_, int)


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers_have_no_lower_bound(name: str) -> None:
    """WIRE.md 7 sets none for these."""
    assert getattr(read({name: -1}), name) == -1


@pytest.mark.parametrize("name", [*WHOLE, *WHOLE_OR_NONE])
@pytest.mark.parametrize(
    "given_",
    [
        1.5,
        "1.5",
        "",
        "twenty",
        "\u0662",
        1e19,
        "0x14",
        "9" * 5_000,
        [],
        [1],
        {},
        float("nan"),
        float("inf"),
        b"1",
        1j,
    ],
    ids=lambda value: repr(value)[:12],
)
def test_what_is_no_whole_number(name: str, given_: Any) -> None:
    """The field is named, and what would be allowed."""
    text = refusal({name: given_})

    assert text.startswith(f"{name}: given ")
    assert "allowed: a whole number" in text
    assert len(text) < 200


@pytest.mark.parametrize("name", [*FLAGS, *FLAGS_OR_NONE])
@pytest.mark.parametrize(
    ("given_", "read_"),
    [
        (True, True),
        (False, False),
        (1, True),
        (0, False),
        (1.0, True),
        (0.0, False),
        *((word, True) for word in ("true", "True", "TRUE", "1", "yes", "on", "t", "y")),
        *((word, False) for word in ("false", "False", "0", "no", "off", "f", "n")),
    ],
)
def test_flags(name: str, given_: Any, read_: bool) -> None:
    """In the words that mean true and false."""
    assert getattr(read({name: given_}), name) is read_


@pytest.mark.parametrize("name", [*FLAGS, *FLAGS_OR_NONE])
@pytest.mark.parametrize("given_", [2, -1, 0.5, "", "maybe", "2", [], [True], {}, float("nan")])
def test_what_is_no_flag(name: str, given_: Any) -> None:
    """Nothing is true merely for being there."""
    text = refusal({name: given_})

    assert text.startswith(f"{name}: given ")
    assert "allowed: true or false" in text


@pytest.mark.parametrize("name", ["timestamp", "expires_at"])
@pytest.mark.parametrize(
    ("given_", "read_"),
    [
        ("2027-01-15T08:00:00+00:00", NOON),
        ("2027-01-15t08:00", NOON),
        ("2027-01-15_08:00:00+0000", NOON),
        ("1800000000", NOON),
        ("1800000000.5", NOON.replace(microsecond=500_000)),
        (1_800_000_000_000, NOON),
        ("2027-01-15T08:00:00Z", NOON),
        ("2027-01-15T08:00:00z", NOON),
        ("2027-01-15 08:00:00+00:00", NOON),
        ("2027-01-15T09:30:00+01:30", NOON),
        ("2027-01-15T08:00:00", NOON),
        ("2027-01-15T08:00:00.250000Z", NOON.replace(microsecond=250_000)),
        ("2027-01-15T08:00:00.250Z", NOON.replace(microsecond=250_000)),
        ("2027-01-15T08:00:00.5Z", NOON.replace(microsecond=500_000)),
        ("2027-01-15T08:00:00.123456789Z", NOON.replace(microsecond=123_456)),
        (1_800_000_000, NOON),
        (1_800_000_000.5, NOON.replace(microsecond=500_000)),
    ],
)
def test_times(name: str, given_: Any, read_: dt.datetime) -> None:
    """ISO text in its forms and unix seconds; always aware, without a zone it is UTC."""
    moment = getattr(read({name: given_}), name)

    assert moment == read_
    assert moment.utcoffset() is not None


def test_a_datetime_is_a_time() -> None:
    """A mapping need not come from JSON; a naive one is UTC."""
    rules = DynamicRules.from_mapping({"timestamp": NOON, "expires_at": NOON.replace(tzinfo=None)})

    assert (rules.timestamp, rules.expires_at) == (NOON, NOON)


@pytest.mark.parametrize("name", ["timestamp", "expires_at"])
@pytest.mark.parametrize(
    "given_",
    [
        "",
        "soon",
        "2027-W02-5",
        "2027-01-15T08",
        " 2027-01-15 ",
        "2027-13-01T00:00:00Z",
        True,
        [],
        {},
        1e300,
        float("nan"),
        float("inf"),
        -1e18,
    ],
)
def test_what_is_no_time(name: str, given_: Any) -> None:
    """Nor is a number no calendar reaches."""
    text = refusal({name: given_})

    assert text.startswith(f"{name}: given ")
    assert "ISO 8601" in text


@pytest.mark.parametrize("edge", ["9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+01:00"])
def test_a_time_at_the_edge_of_the_calendar(edge: str) -> None:
    """It is refused, or it can be written again; nothing fails later on."""
    try:
        rules = read({"expires_at": edge})
    except RulesError as error:
        written = str(error)
    else:
        written = rules.to_mapping()["expires_at"]

    assert written


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize(
    "given_",
    [["10.1.1.1", "::1"], ("10.1.1.1", "::1"), {"10.1.1.1", "::1"}],
    ids=["list", "tuple", "set"],
)
def test_lists_of_texts(name: str, given_: Any) -> None:
    """Any of Python's own collections; the type of the field stays."""
    value = getattr(DynamicRules.from_mapping({name: given_}), name)

    assert sorted(value) == ["10.1.1.1", "::1"]
    assert type(value) is (set if name == "blocked_cloud_providers" else list)


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("given_", ["abc", None, 5, {"a": 1}, ["a", 1], [None], [["a"]]])
def test_what_is_no_list_of_texts(name: str, given_: Any) -> None:
    """A text is not a list of its letters, and one wrong item refuses the list."""
    assert refusal({name: given_}).startswith(f"{name}: given ")


@pytest.mark.parametrize("given_", [[5, 60], ["5", 60.0], (5, 60)])
def test_pairs(given_: Any) -> None:
    """Two whole numbers, as lax as any other."""
    rules = DynamicRules.from_mapping({"endpoint_rate_limits": {"/login": given_}})

    assert rules.endpoint_rate_limits == {"/login": (5, 60)}


@pytest.mark.parametrize(
    "given_",
    [
        None,
        [],
        "x",
        {"/": [1]},
        {"/": [1, 2, 3]},
        {"/": "12"},
        {"/": {"a": 1, "b": 2}},
        {"/": [1, "x"]},
        {"/": [None, 1]},
        {"/": [0, 60]},
        {"/": [5, -60]},
        {"/": 5},
        {1: [1, 2]},
    ],
)
def test_what_is_no_mapping_of_pairs(given_: Any) -> None:
    """One wrong pair refuses the document."""
    assert refusal({"endpoint_rate_limits": given_}).startswith("endpoint_rate_limits: given ")


@pytest.mark.parametrize("name", ["rule_id", "message"])
@pytest.mark.parametrize("given_", [5, True, [], {}, b"x"])
def test_what_is_no_text(name: str, given_: Any) -> None:
    """A number is not taken for its digits."""
    text = refusal({name: given_})

    assert text.startswith(f"{name}: given ")
    assert "allowed: text" in text


@pytest.mark.parametrize("name", ["expires_at", "message", *WHOLE_OR_NONE, *FLAGS_OR_NONE])
def test_none_where_it_is_allowed(name: str) -> None:
    """It is the default."""
    assert getattr(read({name: None}), name) is None


@pytest.mark.parametrize("name", ["rule_id", "timestamp", *WHOLE, *FLAGS, *LISTS])
def test_none_where_it_is_not(name: str) -> None:
    """It does not stand for the default there."""
    assert refusal({name: None}).startswith(f"{name}: given None")


@pytest.mark.parametrize("name", WHOLE_OR_NONE)
@pytest.mark.parametrize("given_", [0, -1, "0"])
def test_bounds(name: str, given_: Any) -> None:
    """A ban after nothing, or a limit of nothing, is a mistake."""
    text = refusal({name: given_})

    assert text.startswith(f"{name}: given ")
    assert "allowed: 1 or more" in text


@pytest.mark.parametrize("name", WHOLE_OR_NONE)
def test_one_is_enough(name: str) -> None:
    """The bound itself is allowed."""
    assert getattr(read({name: 1}), name) == 1


# -- refusing ------------------------------------------------------------------------------------


def test_one_bad_value_refuses_the_document() -> None:
    """Half a document would be another one than the backend's."""
    assert refusal({**WRITTEN, "ttl": "soon"}) == (
        "ttl: given 'soon' (str), allowed: a whole number"
    )


@pytest.mark.parametrize(
    "bad",
    [
        {"version": "x", "ip_blacklist": [1], "message": 5},
        {"endpoint_rate_limits": {"/": [1]}, "expires_at": "soon", "emergency_mode": 7},
        {"auto_ban_threshold": 0, "auto_ban_duration": 0},
        {"version": "x", "auto_ban_threshold": 0},
    ],
    ids="-".join,
)
def test_every_bad_field_is_named(bad: dict[str, Any]) -> None:
    """Whoever corrects it need not try again for each."""
    complaints = refusal({**WRITTEN, **bad}).split("; ")

    assert sorted(text.partition(":")[0] for text in complaints) == sorted(bad)


NETWORK_LISTS = ["ip_blacklist", "ip_whitelist", "emergency_whitelist"]


@pytest.mark.parametrize("name", NETWORK_LISTS)
@pytest.mark.parametrize(
    "given_",
    ["", "300.1.1.1", "10.0.0.0/33", "10.0.0.0/", "::1/129", "::/x", "host", "10.1", "1.2.3.4-5"],
)
def test_what_is_no_network(name: str, given_: str) -> None:
    """The entry is quoted, with its place."""
    text = refusal({name: ["10.0.0.1", given_, "10.0.0.2"]})

    assert text == f"{name}: given {given_!r} (str) at 1, allowed: an IP address or network"


@pytest.mark.parametrize("name", ["blocked_user_agents", "suspicious_patterns"])
@pytest.mark.parametrize(
    ("given_", "why"),
    [
        ("(", "a regular expression (missing ), unterminated subpattern)"),
        ("(a+)+$", "a regular expression that does not backtrack for long"),
        ("x" * 1001, "at most 1000 characters"),
        ("[[a]", "a regular expression whose sets hold no [, --, &&, ~~ or ||"),
        ("(?:" * 25 + "a" + ")*" * 25, "a regular expression not nested deeper than 20 levels"),
    ],
    ids=["broken", "catastrophic", "long", "unclear", "deep"],
)
def test_what_is_no_pattern(name: str, given_: str, why: str) -> None:
    """A bad one is named, and it refuses the document."""
    text = refusal({name: ["sqlmap", given_], "version": "x"})

    assert f"{name}: given " in text
    assert f" at 1, allowed: {why}" in text
    assert "version: given 'x'" in text


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("ip_blacklist", 250_000),
        ("blocked_countries", 1_000),
        ("blocked_user_agents", 5_000),
        ("suspicious_patterns", 1_000),
        ("blocked_cloud_providers", 1_000),
    ],
)
def test_lists_are_bounded(name: str, most: int) -> None:
    """They are refused by their number, before any entry is looked at."""
    text = refusal({name: [None] * (most + 1)})

    assert text == f"{name}: given {most + 1} entries, allowed: at most {most}"


def test_paths_are_bounded() -> None:
    """So is the number of paths with a limit of their own."""
    text = refusal({"endpoint_rate_limits": {str(n): [1, 1] for n in range(10_001)}})

    assert text == "endpoint_rate_limits: given 10001 entries, allowed: at most 10000"


class Loud:
    """A value whose class does not want to be written."""

    def __repr__(self) -> str:
        raise AssertionError("repr was called")


def test_a_refusal_runs_no_code_of_the_value() -> None:
    """A hostile `__repr__` cannot come out of it."""
    text = refusal({"version": Loud(), "ip_blacklist": [Loud()], "message": [], "ttl": "x" * 9_999})

    assert "Loud" in text
    assert len(text) < 500


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["20", "true", "2027-01-15T08:00:00Z"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from(sorted(WRITTEN)) | st.text(max_size=5), json_values, max_size=6)
)
def test_any_document_is_read_or_refused(document: dict[str, Any]) -> None:
    """Nothing but RulesError comes out, and what was read can be written and read again."""
    try:
        rules = DynamicRules.from_mapping(document)
    except RulesError as error:
        is_right = str(error).startswith(tuple(document))
    else:
        is_right = DynamicRules.from_mapping(rules.to_mapping()) == rules

    assert is_right


# -- writing -------------------------------------------------------------------------------------


def test_to_mapping_is_what_json_has() -> None:
    """Lists for sets and pairs, ISO text for times; JSON changes nothing in it."""
    written = read(WRITTEN).to_mapping()

    assert json.loads(json.dumps(written)) == written
    assert written == {
        **WRITTEN,
        "timestamp": "2027-01-15T08:00:00.000000+00:00",
        "expires_at": "2027-01-15T08:00:00.000000+00:00",
        "blocked_cloud_providers": ["AWS", "GCP"],
    }


@pytest.mark.parametrize("make", [DynamicRules, lambda: read(WRITTEN)], ids=["default", "full"])
def test_what_is_written_can_be_read(make: Callable[[], DynamicRules]) -> None:
    """`from_mapping` and `to_mapping` are inverse."""
    rules = make()

    assert read(rules.to_mapping()) == rules
