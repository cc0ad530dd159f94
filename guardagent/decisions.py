"""Whether a request is let in: one rules document, made ready to be asked (pure).

What each field does follows the Guard libraries; docs/rules.rst has it as a table, with the few
differences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, get_args
from urllib.parse import unquote_plus

import attrs

from guardagent.errors import RulesError
from guardagent.networks import Address, Networks, read_address
from guardagent.patterns import Patterns
from guardagent.plain import describe

if TYPE_CHECKING:
    from guardagent.rules import DynamicRules

__all__ = [
    "CHECKS",
    "DECISION_REASONS",
    "UNASKED",
    "Decision",
    "DecisionReason",
    "Judge",
    "made_ready",
]

#: The field of the rules that decided.
DecisionReason = Literal[
    "no_rule",  # allowed: nothing speaks against it
    "ip_whitelist",  # allowed whatever the fields below say
    "emergency_mode",  # blocked: not in emergency_whitelist
    "ip_blacklist",
    "blocked_countries",
    "whitelist_countries",  # blocked: from none of them
    "blocked_cloud_providers",
    "blocked_user_agents",
    "suspicious_patterns",
]
DECISION_REASONS: tuple[DecisionReason, ...] = get_args(DecisionReason)

#: The country of a caller who does not look countries up: their rules are then not applied.
UNASKED: Final = "unasked"

#: Characters that are looked at: of a path with its query, of a user agent.
_PATH_MAX = 8192
_AGENT_MAX = 512
_PATH_WINDOWS = (_PATH_MAX, 2048, 1024, 512, 256, 128)
#: How often a path is decoded: attacks hide behind a second encoding.
_DECODINGS = 2


@attrs.frozen
class Decision:
    """Whether a request is let in; true when it is.

    Args:
        reason: the field of the rules that decided.
        rule: the entry of that field that did, as it is in the document; None when it was the
            field as a whole.
    """

    allowed: bool
    reason: DecisionReason
    rule: str | None = None

    def __bool__(self) -> bool:
        return self.allowed


_NO_RULE = Decision(True, "no_rule")


def _agents(entries: list[str]) -> Patterns:
    return Patterns(entries, text_max=_AGENT_MAX, windows=(_AGENT_MAX,))


def _suspicions(entries: list[str]) -> Patterns:
    texts = 1 + _DECODINGS
    return Patterns(entries, text_max=_PATH_MAX, texts=texts, windows=_PATH_WINDOWS)


#: What makes the entries of a field ready; raises ValueError(what is allowed, position).
CHECKS: dict[str, Callable[[list[str]], Any]] = {
    "ip_blacklist": Networks,
    "ip_whitelist": Networks,
    "emergency_whitelist": Networks,
    "blocked_user_agents": _agents,
    "suspicious_patterns": _suspicions,
}


class Judge:
    """A rules document, compiled; safe to ask from any thread.

    Raises:
        RulesError: an address, network or expression of it cannot be used; each bad field is
            named.
    """

    __slots__ = (
        "_agents",
        "_bans",
        "_countries",
        "_emergency",
        "_needs_address",
        "_passes",
        "_providers",
        "_suspicions",
        "_welcome",
    )

    def __init__(self, rules: DynamicRules) -> None:
        ready, bad = made_ready({name: getattr(rules, name) for name in CHECKS})
        if bad:
            raise RulesError("; ".join(bad))
        self._bans: Networks = ready["ip_blacklist"]
        self._passes: Networks = ready["ip_whitelist"]
        is_emergency = rules.emergency_mode or rules.emergency_whitelist_only
        self._emergency: Networks | None = ready["emergency_whitelist"] if is_emergency else None
        self._agents: Patterns = ready["blocked_user_agents"]
        self._suspicions: Patterns | None = ready["suspicious_patterns"]
        if rules.enable_penetration_detection is False:
            self._suspicions = None
        self._countries = {entry.strip().upper(): entry for entry in rules.blocked_countries}
        self._welcome = {entry.strip().upper() for entry in rules.whitelist_countries}
        self._providers = _providers(sorted(rules.blocked_cloud_providers))
        self._needs_address = bool(
            is_emergency or self._bans or self._passes or self._countries or self._welcome
        )

    def decide(
        self,
        ip: str | None,
        path: str | None,
        user_agent: str | None,
        country: str | None,
        cloud_provider: str | None,
    ) -> Decision:
        """Judge a request; see `DynamicRules.decide`."""
        address = read_address(ip) if self._needs_address and ip else None
        if self._emergency is not None and self._emergency.find(address) is None:
            return Decision(False, "emergency_mode")
        entry = self._passes.find(address)
        if entry is not None:
            return Decision(True, "ip_whitelist", entry)
        entry = self._bans.find(address)
        if entry is not None:
            return Decision(False, "ip_blacklist", entry)
        found = None if country == UNASKED else self._of_country(country, address)
        if found is None and cloud_provider:
            found = self._of_provider(cloud_provider)
        if found is None and self._agents:
            found = self._of_agent(user_agent or "")
        if found is None and path and self._suspicions:
            found = self._of_path(path, self._suspicions)
        return _NO_RULE if found is None else found

    def _of_country(self, country: str | None, address: Address | None) -> Decision | None:
        if address is not None and _is_loopback(address):
            return None
        code = (country or "").strip().upper()
        if self._welcome:  # then the others are blocked anyway
            return None if code in self._welcome else _block("whitelist_countries", None)
        entry = self._countries.get(code)
        return None if entry is None else _block("blocked_countries", entry)

    def _of_provider(self, provider: str) -> Decision | None:
        name, _, region = provider.strip().casefold().partition(":")
        found = self._providers.get(name)
        if found is None or region in found[1]:
            return None
        return _block("blocked_cloud_providers", found[0])

    def _of_agent(self, user_agent: str) -> Decision | None:
        entry = self._agents.find(user_agent)
        return None if entry is None else _block("blocked_user_agents", entry)

    @staticmethod
    def _of_path(path: str, suspicions: Patterns) -> Decision | None:
        for text in _decoded(path[:_PATH_MAX]):
            entry = suspicions.find(text)
            if entry is not None:
                return _block("suspicious_patterns", entry)
        return None


def _block(reason: DecisionReason, entry: str | None) -> Decision:
    return Decision(False, reason, entry)


def made_ready(fields: Mapping[str, list[str]]) -> tuple[dict[str, Any], list[str]]:
    """Make the entries of fields ready; name each field that cannot be used, and why."""
    ready: dict[str, Any] = {}
    bad: list[str] = []
    for name, entries in fields.items():
        try:
            ready[name] = CHECKS[name](entries)
        except ValueError as error:
            bad.append(f"{name}: {_complaint(entries, error)}")
    return ready, bad


def _complaint(entries: list[str], error: ValueError) -> str:
    """Say which of the entries cannot be used, and what is allowed in its place."""
    allowed, position = error.args
    given = f"{len(entries)} entries" if position is None else describe(entries[position])
    place = "" if position is None else f" at {position}"
    return f"given {given}{place}, allowed: {allowed}"


def _providers(entries: Iterable[str]) -> dict[str, tuple[str, frozenset[str]]]:
    """Return for each provider its entry and the regions let in (`AWS:!eu-west-1`)."""
    found: dict[str, tuple[str, frozenset[str]]] = {}
    for entry in entries:
        name, _, region = entry.strip().casefold().partition(":!")
        first, regions = found.get(name, (entry, frozenset[str]()))
        found[name] = first, regions | {region} if region else regions
    return found


def _is_loopback(address: Address) -> bool:
    bits, value = address
    return value >> 24 == 127 if bits == 32 else value == 1


def _decoded(path: str) -> Iterator[str]:
    """Yield a path as it is, and decoded, and decoded again, as far as that changes anything."""
    yield path
    for _ in range(_DECODINGS):
        plain = unquote_plus(path)
        if plain == path:
            return
        path = plain
        yield path
