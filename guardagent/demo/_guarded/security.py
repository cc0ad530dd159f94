"""What the shops behind the Guard libraries have in common: settings, agent and rules."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

import attrs
from guard_core import SecurityConfig

from guardagent.contrib import guard
from guardagent.demo.probe import ProbedAgent

if TYPE_CHECKING:
    from guardagent import AgentConfig, DynamicRules

__all__ = ["RATE", "agent_of", "is_in_force", "open_shop", "security"]

#: Visits a second. The libraries take some 40 ms of a processor for each.
RATE = 15.0

#: Far more than the traffic can have of hostile requests.
_NEVER = 1_000_000

_TIMEOUT = 30.0


def security(config: AgentConfig) -> SecurityConfig:
    """Make guardagent the agent of the Guard libraries, and return settings for one of these.

    Args:
        config: the agent's; nothing of the environment is added to it.
    """
    settings = attrs.asdict(config, recurse=False)
    # Seconds instead of the minutes that a Guard library's own settings allow, and no environment.
    own = {name: settings[name] for name in settings if not name.endswith("_version")}
    guard.install(make_agent=ProbedAgent, **own)
    return SecurityConfig(
        enable_agent=True,
        agent_api_key=str(config.api_key),
        agent_endpoint=config.endpoint,
        agent_project_id=config.project_id,
        enable_dynamic_rules=True,
        enable_redis=False,
        trusted_proxies=("127.0.0.1",),
        blocked_user_agents=["hydra"],
        # It reports each time one of its own patterns took longer than usual.
        muted_event_types=frozenset({"pattern_anomaly_statistical_anomaly"}),
        rate_limit=10,
        rate_limit_window=5,
        auto_ban_threshold=_NEVER,  # the attacker is left to the rule that is pushed
    )


def agent_of(settings: SecurityConfig) -> ProbedAgent:
    """Return the agent that the library gets for these settings, now or later."""
    agent = guard.guard_agent(settings.to_agent_config()).agent
    assert isinstance(agent, ProbedAgent)
    return agent


def is_in_force(current: object, rules: DynamicRules) -> bool:
    """Tell whether the rules a library says it has are these."""
    known = (getattr(current, "rule_id", None), getattr(current, "version", None))
    return known == (rules.rule_id, rules.version)


def open_shop(port: int) -> None:
    """Ask for the first page: the libraries build themselves at the first request.

    Raises:
        OSError: the shop did not answer, or with an error.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
    try:
        connection.request("GET", "/", headers={"User-Agent": "guardagent-demo"})
        status = connection.getresponse().status
    except http.client.HTTPException as error:
        raise OSError(f"the shop did not answer: {error!r}") from error
    finally:
        connection.close()
    if status != http.client.OK:
        raise OSError(f"the shop answered its first request with status {status}")
