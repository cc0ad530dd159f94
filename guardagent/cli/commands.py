"""The `guardagent` command and its parts."""

from __future__ import annotations

import click

from guardagent import __version__
from guardagent.cli.collect import collect
from guardagent.cli.demo import demo
from guardagent.cli.relay import relay
from guardagent.cli.rules import rules
from guardagent.cli.send import send
from guardagent.cli.spool import spool

__all__ = ["guardagent"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="guardagent")
def guardagent() -> None:
    """Report security events from Python applications.

    "demo" shows the agent at work. "send" tries your backend. "collect" is a
    backend for development, and "rules" changes what it tells its agents.
    "relay" delivers what others spool, and "spool" is for who looks after it.
    """


guardagent.add_command(collect)
guardagent.add_command(demo)
guardagent.add_command(relay)
guardagent.add_command(rules)
guardagent.add_command(send)
guardagent.add_command(spool)
