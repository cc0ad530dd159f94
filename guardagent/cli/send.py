"""`guardagent send`: one test event to a real backend, and what became of it."""

from __future__ import annotations

from typing import Any

import attrs
import click

from guardagent import AgentConfig, ConfigError
from guardagent._clock import SYSTEM_CLOCK

__all__ = ["send"]


@click.command()
@click.option("--endpoint", metavar="URL", help="Base address.  [env: GUARDAGENT_ENDPOINT]")
@click.option(
    "--api-key",
    metavar="KEY",
    help="Key of the backend; in the environment fewer people see it.  [env: GUARDAGENT_API_KEY]",
)
@click.option("--project-id", metavar="ID", help="Project.  [env: GUARDAGENT_PROJECT_ID]")
@click.option(
    "--timeout",
    type=float,
    metavar="SECONDS",
    help="Longest wait for an answer.  [env: GUARDAGENT_TIMEOUT]",
)
def send(**options: Any) -> None:
    """Send one test event to the backend and say what happened.

    Every setting of the agent is read from the environment, as
    GUARDAGENT_<NAME>; the options beat it. Ends with status 0 only when the
    backend accepted the event.
    """
    from guardagent.cli.attempt import deliver  # takes requests along, which others do not need

    config = _config({name: value for name, value in options.items() if value is not None})
    click.echo(f"Sending one test event to {config.endpoint} ...")
    began = SYSTEM_CLOCK.monotonic()
    verdict = deliver(config)
    if verdict is not None:
        click.echo(_scrub(f"Not accepted: {verdict.reason}.\n{verdict.advice}", config), err=True)
        raise SystemExit(1)
    click.echo(f"Accepted, in {SYSTEM_CLOCK.monotonic() - began:.2f} s.")


def _config(options: dict[str, Any]) -> AgentConfig:
    try:
        config = AgentConfig.from_env(**options)
        # One event, one attempt, and nothing that the application's own agent shares.
        config = attrs.evolve(
            config,
            retry_attempts=0,
            flush_interval=0.05,
            spool="memory://",
            enable_events=True,
            max_event_age=None,
            flush_on_sigterm=False,
        )
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    if not config.is_enabled:
        raise click.UsageError("There is no key: set GUARDAGENT_API_KEY, or give --api-key.")
    return config


def _scrub(text: str, config: AgentConfig) -> str:
    """Take the key out of what a backend wrote; it may quote what it was sent."""
    return text.replace(str(config.api_key), "[REDACTED]")
