"""What the frameworks' commands say: how an agent is set up, and what its backend answers."""

from __future__ import annotations

import json

from guardagent import __version__
from guardagent._clock import SYSTEM_CLOCK
from guardagent._quiet import quiet
from guardagent.cli.attempt import deliver
from guardagent.cli.tally import printable
from guardagent.cli.verdict import Verdict, on_error
from guardagent.config import AgentConfig
from guardagent.contrib._request import Reporter
from guardagent.errors import DeliveryError, RulesError
from guardagent.rules import DynamicRules
from guardagent.transport.answers import judge
from guardagent.transport.http import HTTPTransport

__all__ = ["send", "status"]

_RULES_BYTES = 8 * 1024 * 1024


def status(reporter: Reporter) -> tuple[list[str], bool]:
    """Describe a shim's agent in lines, and tell whether all is well.

    Asks the backend for its rules, which shows that it is there and takes the key. Starts nothing.
    """
    agent = reporter.agent
    if agent is None or not agent.config.is_enabled:
        return [f"guardagent {__version__}", "There is no api_key: nothing is reported."], False
    config, options = agent.config, reporter.options
    lines = [
        f"guardagent {__version__}",
        f"endpoint: {config.endpoint}",
        f"project: {config.project_id or 'none'}",
        f"events: {_yes(config.enable_events)}",
        f"metrics: {_yes(config.enable_metrics and options.capture_metrics)}",
        f"trusted proxies: {options.trusted_proxies}",
        f"rules enforced: {_yes(options.enforce_rules)}",
        f"pending: {agent.stats().pending}",
    ]
    try:
        return [*lines, f"rules: {_rules(config)}", "The backend answers."], True
    except RulesError as error:
        return [*lines, printable(f"rules: wrong ({error})")], False
    except DeliveryError as error:
        return [*lines, *_refused("The backend does not answer", on_error(error, config))], False


def send(reporter: Reporter) -> tuple[list[str], bool]:
    """Send one test event with a shim's settings, and tell whether it was accepted."""
    agent = reporter.agent
    if agent is None or not agent.config.is_enabled:
        return ["There is no api_key: nothing can be sent."], False
    verdict = deliver(agent.config)
    if verdict is not None:
        return _refused("Not accepted", verdict), False
    return [f"Accepted by {agent.config.endpoint}."], True


def _rules(config: AgentConfig) -> str:
    transport = HTTPTransport(config, pause=lambda _seconds: False)
    try:
        deadline = SYSTEM_CLOCK.monotonic() + config.timeout
        with quiet():  # the application's root logger may hear urllib3, and capture what it hears
            answer = transport.exchange("GET", "rules", deadline=deadline, max_bytes=_RULES_BYTES)
    finally:
        transport.close()
    if answer.status != 404:  # a backend without rules says 404, and that is no failure
        judge(answer, bytes_sent=0, now=SYSTEM_CLOCK.now())
    try:
        document = json.loads(answer.body) if answer.status == 200 else {}
    except ValueError:
        raise RulesError("the answer is not JSON") from None
    if not isinstance(document, dict) or not {"rule_id", "version"}.intersection(document):
        return "none"
    rules = DynamicRules.from_mapping(document)
    return printable(f"{rules.rule_id}, version {rules.version}")


def _refused(what: str, verdict: Verdict) -> list[str]:
    return [f"{what}: {verdict.reason}.", verdict.advice]


def _yes(answer: bool) -> str:
    return "yes" if answer else "no"
