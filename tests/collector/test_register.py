"""The list of agents and their loss accounts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from guardagent import Agent, AgentConfig, SecurityEvent
from guardagent.collector import Arrival, Collector, CollectorServer, Store
from guardagent.collector.register import Register
from tests.collector.parts import Client, status
from tests.conftest import quick_settings

if TYPE_CHECKING:
    from tests.collector.conftest import Serve

_STATUS = "/api/v1/status"
_AGENTS = "/api/v1/agents"


def _arrival(number: int, *, agent: str = "host-1", **fields: Any) -> Arrival:
    body = json.dumps(status(**fields))
    return Arrival(number, "status", f"k-{number}", "healthy", "shop", agent, "", "", 1e3, 1, body)


def _register(*arrivals: Arrival) -> Register:
    register = Register()
    register.add(arrivals)
    return register


def test_losses_are_added_up() -> None:
    """Each report tells of new losses; the account has all of them, the greatest first."""
    register = _register(
        _arrival(1, dropped={"overflow": 3}, uptime=60.0),
        _arrival(2, dropped={}, uptime=120.0),
        _arrival(3, dropped={"rejected": 1, "overflow": 2, "expired": 0}, uptime=180.0),
    )

    (row,) = register.rows()
    assert row.lost == {"overflow": 5, "rejected": 1, "expired": 0}
    assert row.loss_account == "overflow 5, rejected 1"
    assert (row.reports, row.uptime) == (3, 180.0)


def test_the_processes_of_an_installation_are_kept_apart() -> None:
    """By host and process; who reported last stands first."""
    register = _register(
        _arrival(1, hostname="a", pid=1),
        _arrival(2, hostname="a", pid=2),
        _arrival(3, hostname="b", pid=1),
        _arrival(4, hostname="a", pid=1),
    )

    assert [(row.hostname, row.pid, row.reports) for row in register.rows()] == [
        ("a", 1, 2),
        ("b", 1, 1),
        ("a", 2, 1),
    ]


def test_a_report_of_another_agent_is_enough() -> None:
    """guard-agent's says nothing of reasons: its failures are the account."""
    (row,) = _register(_arrival(1, events_failed=4)).rows()

    assert (row.lost, row.loss_account) == (None, "4")
    assert (row.hostname, row.pid, row.rules_version) == (None, None, None)


def test_values_of_another_type_are_left_out() -> None:
    """Whatever else a report holds, the list can be made."""
    odd = {"hostname": 7, "pid": "x", "durable": "yes", "rules_version": [], "rules_age": {}}
    (row,) = _register(_arrival(1, **odd)).rows()

    assert (row.hostname, row.pid, row.durable, row.rules_version) == (None, None, None, None)


def test_agents_and_reasons_are_bounded() -> None:
    """Nobody can fill the memory with names."""
    register = _register(*(_arrival(n, agent=f"host-{n}") for n in range(1_100)))
    many = _register(_arrival(1, dropped={f"reason-{n}": 1 for n in range(200)}))

    assert len(register.rows()) == 1_000
    assert register.rows()[0].agent == "host-1099"
    assert len(many.rows()[0].lost or ()) == 50


def test_the_list_is_served(client: Client) -> None:
    """As JSON, at an address of its own, up to date."""
    assert client.get(_AGENTS).document == {"agents": []}
    headers = {"X_Agent_Install_Id": "host-1", "X_Project_ID": "shop"}
    client.post(_STATUS, status(dropped={"overflow": 2}), **headers)
    client.post(_STATUS, status(dropped={"overflow": 1}, uptime=99.0), **headers)

    (row,) = client.get(_AGENTS).document["agents"]

    assert (row["agent"], row["project_id"], row["uptime"]) == ("host-1", "shop", 99.0)
    assert row["lost"] == {"overflow": 3}


def test_reports_of_a_store_are_there_from_the_start(serve: Serve, store: Store) -> None:
    """A collector that begins with a file knows whom it has in it."""
    serve().post(_STATUS, status(), X_Agent_Install_Id="host-1")

    (row,) = serve().get(_AGENTS).document["agents"]

    assert row["agent"] == "host-1"


@pytest.mark.parametrize("dropped", [[], {"overflow": -1}, {"overflow": "3"}, {"overflow": True}])
def test_an_account_that_is_none_is_refused(client: Client, dropped: Any) -> None:
    """Numbers of losses, none below nothing."""
    reply = client.post(_STATUS, status(dropped=dropped))

    assert reply.status == 422
    assert reply.errors[0].startswith("dropped: given ")


def test_an_agents_losses_arrive(store: Store) -> None:
    """What the agent counts as lost is in the collector's list, by reason."""
    with CollectorServer(app=Collector(store)) as server, Client(server) as client:
        settings = {**quick_settings(server.url), "status_interval": 0.1, "install_id": "host-1"}
        with Agent(AgentConfig(**settings, before_send=lambda _event: None)) as agent:
            for _ in range(3):
                agent.capture(SecurityEvent(event_type="a"))
            agent.flush(5.0)
            assert store.wait(store.last_id, 20.0)
            assert store.wait(store.last_id, 20.0)

        (row,) = client.get(_AGENTS).document["agents"]

    assert row["lost"]["filtered"] == 3
    assert row["pid"] == agent.stats().pid
