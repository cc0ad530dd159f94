"""`guardagent demo`: the agent at work, with a rule from a backend that goes away and returns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from guardagent.cli import guards
from guardagent.cli.extras import extra
from guardagent.errors import ConfigError

if TYPE_CHECKING:
    from guardagent.demo.site import MakeSite

__all__ = ["demo"]


@click.command()
@click.option(
    "--seconds",
    default=15.0,
    show_default=True,
    type=click.FloatRange(2.0, 600.0),
    help="How long it takes, about.",
)
@click.option(
    "--guard",
    "framework",
    type=click.Choice([*guards.LIBRARIES]),
    help="Have the real Guard library for this framework find the attacks.",
)
def demo(seconds: float, framework: str | None) -> None:
    """Show a Flask application that reports to a backend and obeys its rules.

    A rule that blocks an attacker is pushed while the application runs; then
    the backend goes away for a while. Everything runs on this machine, over
    real HTTP on loopback, and ends by itself: with status 0 when every event
    and metric arrived exactly once and the rule was obeyed, and with a reason
    otherwise.

    With --guard it is an application of that framework, behind fastapi-guard,
    flaskapi-guard, djapi-guard or tornadoapi-guard, which has to be installed.
    The library finds the attacks, reports them through guardagent and obeys
    the rule.
    """
    with extra("demo", "flask", "werkzeug"):
        from guardagent.demo import Play
        from guardagent.demo.shop import Shop
    from guardagent.cli.stage import audience, print_outcome

    make_site: MakeSite = Shop
    if framework is not None:
        make_site = guards.load(framework)
        guards.hush()
    try:
        with audience() as watching:
            outcome = Play(seconds=seconds, make_site=make_site).perform(watching)
    # The collector's port was taken while it was away; a variable of the environment is wrong.
    except (OSError, ConfigError) as error:
        raise click.ClickException(f"the demonstration could not go on: {error}") from error
    print_outcome(outcome)
    faults = outcome.faults()
    if faults:
        raise click.ClickException("; ".join(faults))
    click.echo(f"Every one of {len(outcome.keys)} captures arrived exactly once.")
    click.echo("Every visit from the address that was blocked was turned away.")
