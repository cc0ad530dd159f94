"""Whether a request is let in: every field of the rules, against a slow and obvious reference."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardagent import DynamicRules
from guardagent.contrib.guard.models import DynamicRules as DynamicRulesOfGuard
from guardagent.decisions import DECISION_REASONS, UNASKED, Decision
from guardagent.errors import RulesError
from guardagent.networks import read_address


def decided(request: dict[str, Any], **fields: Any) -> tuple[bool, str, str | None]:
    """Judge a request under a document with these fields."""
    decision = DynamicRules.from_mapping(fields).decide(**request)
    return decision.allowed, decision.reason, decision.rule


def of_ip(ip: Any, **fields: Any) -> tuple[bool, str, str | None]:
    return decided({"ip": ip}, **fields)


ALLOWED = (True, "no_rule", None)


# -- the decision --------------------------------------------------------------------------------


def test_without_rules_everything_is_let_in() -> None:
    """Whatever is told of it, or not."""
    assert decided({}) == ALLOWED
    request = {"ip": "::1", "path": "/?q=1", "method": "GET", "user_agent": "x", "country": "DE"}
    assert decided({**request, "cloud_provider": "AWS"}) == ALLOWED


def test_a_decision_is_true_when_it_lets_in() -> None:
    """So that `if rules.decide(...)` reads right."""
    rules = DynamicRules(ip_blacklist=["203.0.113.9"])

    assert rules.decide(ip="203.0.113.8")
    assert not rules.decide(ip="203.0.113.9")


def test_rules_that_were_never_checked() -> None:
    """Those built by hand are checked when they are first asked; each bad field is named."""
    rules = DynamicRules(ip_blacklist=["host"], suspicious_patterns=["("])

    with pytest.raises(RulesError, match="ip_blacklist: given 'host'.*; suspicious_patterns: "):
        rules.decide(ip="::1")


def test_rules_are_made_ready_once() -> None:
    """A second decision compiles nothing; rules are equal whether they are ready or not."""
    rules, other = DynamicRules(), DynamicRules()
    other = DynamicRules(timestamp=rules.timestamp)

    assert rules.judge is rules.judge
    assert rules == other


def test_rules_that_were_read_are_ready() -> None:
    """Whether they can be used is told by making them ready, once; nobody does it again."""
    rules = DynamicRules.from_mapping({"ip_blacklist": ["203.0.113.9"]})

    rules.ip_blacklist.append("no address, which would be refused")

    assert not rules.decide(ip="203.0.113.9")
    assert DynamicRulesOfGuard.of(rules).judge is rules.judge


def test_rules_of_the_drop_in_decide_too() -> None:
    """They are a class of their own, made from the agent's."""
    rules = DynamicRulesOfGuard.of(DynamicRules(ip_blacklist=["203.0.113.9"]))

    assert not rules.decide(ip="203.0.113.9")


# -- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "ip", "is_blocked"),
    [
        ("203.0.113.9", "203.0.113.9", True),
        ("203.0.113.9", "203.0.113.10", False),
        ("203.0.113.0/24", "203.0.113.255", True),
        ("203.0.113.77/24", "203.0.113.1", True),
        ("203.0.113.0/255.255.255.0", "203.0.113.1", True),
        ("203.0.113.0/0.0.0.255", "203.0.114.1", False),
        ("0.0.0.0/0", "198.51.100.1", True),
        ("0.0.0.0/0", "2001:db8::1", False),
        ("::/0", "198.51.100.1", False),
        ("::/0", "2001:db8::1", True),
        ("::/0", "::ffff:198.51.100.1", False),
        ("::/8", "::ffff:198.51.100.1", False),
        ("::/8", "64::1", True),
        ("2001:db8::/0", "2001:db8::1", True),
        ("::fffe:0:0/96", "::fffe:0:1", True),
        ("::/96", "::198.51.100.1", True),
        ("2001:db8::/32", "2001:db8:1::", True),
        ("2001:DB8::1", "2001:0db8:0:0::0001", True),
        ("203.0.113.9", "::ffff:203.0.113.9", True),
        ("203.0.113.9", "::ffff:cb00:7109", True),
        ("::ffff:203.0.113.0/120", "203.0.113.9", True),
        (" 203.0.113.9 ", "203.0.113.9", True),
        ("203.0.113.9", " 203.0.113.9\n", True),
        ("203.0.113.9", "203.0.113.9:51234", True),
        ("2001:db8::1", "[2001:db8::1]:443", True),
        ("2001:db8::1", "[2001:db8::1]", True),
        ("fe80::1", "fe80::1%eth0", True),
        ("203.0.113.9", ipaddress.ip_address("203.0.113.9"), True),
    ],
)
def test_addresses_and_networks(entry: str, ip: Any, is_blocked: bool) -> None:
    """In all their forms; the entry that decided is told as it was given."""
    expected = (False, "ip_blacklist", entry) if is_blocked else ALLOWED

    assert of_ip(ip, ip_blacklist=[entry]) == expected


@pytest.mark.parametrize(
    "entry",
    ["::ffff:10.0.0.0/8", "::ffff:0:0/95", "::fffe:0:0/95", "::ffff:0:0/81", "::ffff:0:0/0"],
)
def test_networks_around_ipv4_are_refused(entry: str) -> None:
    """They cannot have been meant; with an IPv6 reader they would hold all of IPv4."""
    with pytest.raises(RulesError, match="IPv4 as IPv6 has a prefix of 96 or more"):
        DynamicRules.from_mapping({"ip_blacklist": [entry]})


@pytest.mark.parametrize(
    "ip",
    [
        *(None, "", "unknown", "host", "1.2.3", "1.2.3.4.5", "1.2.3.04", "1.2.3.4:x", "[::1"),
        *("::1::", "1" * 10_000, "\ud800", "1.2.3.4\0", "\u0661.2.3.4", 7, b"1.2.3.4", object()),
    ],
    ids=lambda ip: repr(ip)[:12],
)
def test_what_is_no_address(ip: Any) -> None:
    """It is on no list, and nothing is raised; in an emergency it stays outside."""
    lists = {"ip_blacklist": ["0.0.0.0/0", "::/0"]}
    emergency = {"emergency_mode": True, "emergency_whitelist": ["0.0.0.0/0", "::/0"]}

    assert of_ip(ip, **lists) == ALLOWED
    assert of_ip(ip, **emergency) == (False, "emergency_mode", None)


def test_the_smallest_network_is_told() -> None:
    """It says most about the client."""
    networks = ["10.0.0.0/8", "10.1.2.3", "10.1.0.0/16"]

    assert of_ip("10.1.2.3", ip_blacklist=networks)[2] == "10.1.2.3"
    assert of_ip("10.1.9.9", ip_blacklist=networks)[2] == "10.1.0.0/16"
    assert of_ip("10.9.9.9", ip_blacklist=networks)[2] == "10.0.0.0/8"


addresses = st.one_of(
    st.ip_addresses(v=4, network="10.0.0.0/27"),
    st.ip_addresses(v=6, network="2001:db8::/123"),
    st.ip_addresses(v=4, network="10.0.0.0/27").map(lambda ip: f"::ffff:{ip}"),
    st.ip_addresses(),
).map(str)


@st.composite
def networks(draw: st.DrawFn) -> str:
    address = draw(addresses)
    bits = 128 if ":" in address else 32
    # A mapped network larger than all of IPv4 would be IPv6 for one and both for another reader.
    least = 96 if address.startswith("::ffff:") else 0
    length = draw(st.none() | st.integers(max(least, bits - 8), bits) | st.integers(least, bits))
    return address if length is None else f"{address}/{length}"


def plain_address(text: str) -> Any:
    address: Any = ipaddress.ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address


def plain_network(text: str) -> Any:
    network: Any = ipaddress.ip_network(text, strict=False)
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None:
        return network
    return ipaddress.ip_network((mapped, network.prefixlen - 96), strict=False)


def is_listed(ip: str, entries: list[str]) -> bool:
    """Tell whether an address is in one of the networks; one loop."""
    address = plain_address(ip)
    return any(
        address.version == net.version and address in net for net in map(plain_network, entries)
    )


lists = st.lists(networks(), max_size=4)


@given(
    ip=addresses,
    blacklist=lists,
    whitelist=lists,
    emergency=lists,
    is_emergency=st.booleans(),
    blocked=st.lists(st.sampled_from(["XX", "yy"]), max_size=2),
    welcome=st.lists(st.sampled_from(["YY", "zz"]), max_size=2),
    country=st.sampled_from([None, "", "XX", "xx", "YY", "ZZ", "QQ", UNASKED]),
    agent=st.sampled_from([None, "", "curl/8", "sqlMAP 1.7"]),
    path=st.sampled_from(["/", "/?q=union select", "/?q=UNION%20SELECT", "/%252e%252e%252fetc"]),
)
def test_a_decision_is_the_references(
    ip: str,
    blacklist: list[str],
    whitelist: list[str],
    emergency: list[str],
    is_emergency: bool,
    blocked: list[str],
    welcome: list[str],
    country: str | None,
    agent: str | None,
    path: str,
) -> None:
    """For any address, any lists, and any mixture of the rest."""
    rules = DynamicRules.from_mapping(
        {
            "ip_blacklist": blacklist,
            "ip_whitelist": whitelist,
            "emergency_whitelist": emergency,
            "emergency_mode": is_emergency,
            "blocked_countries": blocked,
            "whitelist_countries": welcome,
            "blocked_user_agents": ["sqlmap", "^$"],
            "suspicious_patterns": [r"union\s+select", r"\.\./etc"],
        }
    )

    def reference() -> tuple[bool, str]:  # noqa: PLR0911 - one line for each rule
        code = (country or "").upper()
        is_asked = country != UNASKED and not plain_address(ip).is_loopback
        if is_emergency and not is_listed(ip, emergency):
            return False, "emergency_mode"
        if is_listed(ip, whitelist):
            return True, "ip_whitelist"
        if is_listed(ip, blacklist):
            return False, "ip_blacklist"
        if is_asked and welcome and code not in [one.upper() for one in welcome]:
            return False, "whitelist_countries"
        if is_asked and not welcome and code in [one.upper() for one in blocked]:
            return False, "blocked_countries"
        if not agent or re.search("sqlmap", agent, re.IGNORECASE):
            return False, "blocked_user_agents"
        return (True, "no_rule") if path == "/" else (False, "suspicious_patterns")

    decision = rules.decide(ip=ip, path=path, user_agent=agent, country=country)

    assert (decision.allowed, decision.reason) == reference()
    assert decision.reason in DECISION_REASONS


@given(st.text(max_size=40) | addresses | networks())
def test_any_text_is_an_address_or_none(text: str) -> None:
    """What the standard library reads is read, to the same number; nothing raises."""
    address = read_address(text)

    try:
        expected = plain_address(text)
    except ValueError:
        return
    assert address == (expected.max_prefixlen, int(expected))


# -- emergencies, countries, clouds --------------------------------------------------------------


def test_an_emergency_lets_in_its_own_list_only() -> None:
    """The ordinary whitelist does not count then; who is let in meets the other rules."""
    rules = {
        "emergency_mode": True,
        "emergency_whitelist": ["192.0.2.0/24"],
        "ip_whitelist": ["198.51.100.1"],
        "ip_blacklist": ["192.0.2.66"],
    }

    assert of_ip("192.0.2.1", **rules) == ALLOWED
    assert of_ip("198.51.100.1", **rules) == (False, "emergency_mode", None)
    assert of_ip("192.0.2.66", **rules) == (False, "ip_blacklist", "192.0.2.66")


def test_emergency_whitelist_only_closes_the_door_by_itself() -> None:
    """As its name says; without an entry nobody gets in."""
    rules = {"emergency_whitelist_only": True, "emergency_whitelist": ["192.0.2.1"]}

    assert of_ip("192.0.2.1", **rules) == ALLOWED
    assert of_ip("192.0.2.2", **rules)[1] == "emergency_mode"
    assert of_ip("192.0.2.1", emergency_whitelist_only=True)[1] == "emergency_mode"


def test_an_emergency_whitelist_alone_does_nothing() -> None:
    """It waits for the emergency."""
    assert of_ip("192.0.2.2", emergency_whitelist=["192.0.2.1"]) == ALLOWED


def test_a_whitelisted_address_is_let_in_whatever_else_is_said() -> None:
    """Whitelists are stronger than blacklists, countries, clouds, agents and patterns."""
    request = {
        "ip": "203.0.113.9",
        "path": "/?q=attack",
        "user_agent": "sqlmap",
        "country": "XX",
        "cloud_provider": "AWS",
    }
    rules: dict[str, Any] = {
        "ip_blacklist": ["203.0.113.9"],
        "blocked_countries": ["XX"],
        "blocked_cloud_providers": ["AWS"],
        "blocked_user_agents": ["sqlmap"],
        "suspicious_patterns": ["attack"],
    }

    assert decided(request, **rules, ip_whitelist=["203.0.113.0/24"]) == (
        (True, "ip_whitelist", "203.0.113.0/24")
    )
    assert decided(request, **rules)[1] == "ip_blacklist"


def test_a_whitelist_shuts_nobody_out() -> None:
    """As in the Guard libraries, where it only lifts bans."""
    assert of_ip("198.51.100.7", ip_whitelist=["198.51.100.1"]) == ALLOWED


@pytest.mark.parametrize(
    ("country", "fields", "expected"),
    [
        ("XX", {"blocked_countries": ["xx"]}, (False, "blocked_countries", "xx")),
        ("xx", {"blocked_countries": [" XX "]}, (False, "blocked_countries", " XX ")),
        ("YY", {"blocked_countries": ["XX"]}, ALLOWED),
        (None, {"blocked_countries": ["XX"]}, ALLOWED),
        ("YY", {"whitelist_countries": ["YY"]}, ALLOWED),
        ("XX", {"whitelist_countries": ["YY"]}, (False, "whitelist_countries", None)),
        (None, {"whitelist_countries": ["YY"]}, (False, "whitelist_countries", None)),
        ("", {"whitelist_countries": ["YY"]}, (False, "whitelist_countries", None)),
        ("YY", {"whitelist_countries": ["YY"], "blocked_countries": ["YY"]}, ALLOWED),
        (UNASKED, {"whitelist_countries": ["YY"], "blocked_countries": ["XX"]}, ALLOWED),
    ],
)
def test_countries(country: str | None, fields: Any, expected: Any) -> None:
    """In any case; a country that is not known is not among those let in."""
    assert decided({"ip": "203.0.113.9", "country": country}, **fields) == expected


@pytest.mark.parametrize("ip", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_the_own_host_has_no_country(ip: str) -> None:
    """Health checks go on when only one country is let in."""
    assert decided({"ip": ip, "country": None}, whitelist_countries=["YY"]) == ALLOWED


@pytest.mark.parametrize(
    ("provider", "entries", "rule"),
    [
        ("AWS", ["AWS"], "AWS"),
        ("aws", ["AWS"], "AWS"),
        ("GCP", ["AWS"], None),
        (None, ["AWS"], None),
        ("AWS", ["AWS:!eu-west-1"], "AWS:!eu-west-1"),
        ("AWS:us-east-1", ["AWS:!eu-west-1"], "AWS:!eu-west-1"),
        ("AWS:eu-west-1", ["AWS:!eu-west-1"], None),
        ("AWS:eu-west-1", ["AWS", "AWS:!eu-west-1", "AWS:!eu-west-2"], None),
        ("AWS:eu-west-1", ["AWS"], "AWS"),
    ],
)
def test_cloud_providers(provider: str | None, entries: list[str], rule: str | None) -> None:
    """With the regions that are let in all the same, as the Guard libraries write them."""
    expected = ALLOWED if rule is None else (False, "blocked_cloud_providers", rule)

    assert decided({"cloud_provider": provider}, blocked_cloud_providers=entries) == expected


# -- texts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "agent", "is_blocked"),
    [
        ("sqlmap", "SQLMap/1.7", True),
        ("sql.ap", "sqlmap", True),
        ("^curl/", "curl/8.0", True),
        ("^curl/", "libcurl/8.0", False),
        ("^$", "", True),
        ("^$", None, True),
        ("sqlmap", None, False),
        ("x", "-" * 512 + "x", False),
        ("x", "-" * 511 + "x", True),
    ],
)
def test_user_agents(pattern: str, agent: str | None, is_blocked: bool) -> None:
    """Expressions in any case, over the first 512 characters."""
    expected = (False, "blocked_user_agents", pattern) if is_blocked else ALLOWED

    assert decided({"user_agent": agent}, blocked_user_agents=[pattern]) == expected


@pytest.mark.parametrize(
    ("pattern", "path", "is_blocked"),
    [
        ("/etc/passwd", "/file?name=/ETC/passwd", True),
        ("/etc/passwd", "/file?name=%2Fetc%2Fpasswd", True),
        ("/etc/passwd", "/file?name=%252fetc%252fpasswd", True),
        ("/etc/passwd", "/file?name=%25252fetc%25252fpasswd", False),
        ("%2f", "/a%2fb", True),
        (r"union\s+select", "/?q=union+select", True),
        ("attack", "/" + "-" * 8_000 + "attack", True),
        ("at+ack", "/" + "-" * 8_000 + "attack", True),
        ("attack", "/" + "-" * 8_192 + "attack", False),
        ("attack", None, False),
        ("attack", "", False),
        ("<script", "/?%zz%3Cscript%3e", True),
    ],
)
def test_patterns(pattern: str, path: str | None, is_blocked: bool) -> None:
    """Over path and query, as they come and decoded up to twice."""
    expected = (False, "suspicious_patterns", pattern) if is_blocked else ALLOWED

    assert decided({"path": path}, suspicious_patterns=[pattern]) == expected


@pytest.mark.parametrize(("switch", "is_blocked"), [(None, True), (True, True), (False, False)])
def test_patterns_can_be_switched_off(switch: bool | None, is_blocked: bool) -> None:
    """By `enable_penetration_detection`; None leaves them on."""
    decision = decided(
        {"path": "/attack"}, suspicious_patterns=["attack"], enable_penetration_detection=switch
    )

    assert decision[0] is not is_blocked


def test_reasons_are_fields() -> None:
    """But for the one that says that none of them decided."""
    reasons = set(DECISION_REASONS) - {"no_rule"}

    assert all(hasattr(DynamicRules(), reason) for reason in reasons)
    assert Decision(True, "no_rule") == DynamicRules().decide()
