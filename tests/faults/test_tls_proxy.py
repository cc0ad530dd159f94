"""Certificates, proxies and the environment: whom the agent trusts, and who sees the key."""

from __future__ import annotations

import base64
import importlib
import logging
import os
import socket
from pathlib import Path

import pytest

from tests.conftest import MakeAgent
from tests.support.accounts import Errors, assert_balanced, assert_delivered, bounded, capture
from tests.support.backend import Backend
from tests.support.tunnel import Tunnel

if not os.environ.get("CI"):  # there a missing part is an error, at a desk it is a skip
    pytest.importorskip("cryptography")
certificates = importlib.import_module("tests.support.certificates")


@pytest.fixture
def authority(tmp_path: Path) -> certificates.Authority:
    """An authority that nobody knows yet."""
    return certificates.Authority(tmp_path / "authority")


@pytest.fixture
def stranger(tmp_path: Path) -> certificates.Authority:
    """Another one, which signed nothing here."""
    return certificates.Authority(tmp_path / "stranger", "stranger")


def test_unknown_certificate_is_refused(
    make_agent: MakeAgent, authority: certificates.Authority
) -> None:
    """Nothing of a request reaches a backend whose certificate cannot be checked."""
    with Backend(tls=authority.issue().server_context()) as backend:
        errors = Errors()
        agent = make_agent(endpoint=backend.url, on_error=errors)
        keys = capture(agent, 5)
        assert errors.wait()

        assert agent.stats().pending == 5
        assert bounded(lambda: agent.stop(timeout=0.5)) is False
        assert backend.all_requests == []
        assert_balanced(agent)
        assert agent.stats().captured == len(keys)
        assert "certificate" in str(errors.seen[0][1]).lower()


def test_certificate_for_another_host_is_refused(
    make_agent: MakeAgent, authority: certificates.Authority
) -> None:
    """A known authority is not enough: the name must be the backend's."""
    context = authority.issue("elsewhere.test").server_context()
    with Backend(tls=context) as backend:
        errors = Errors()
        agent = make_agent(endpoint=backend.url, ca_bundle=str(authority.bundle), on_error=errors)
        capture(agent, 5)
        assert errors.wait()

        agent.stop(timeout=0.5)
        assert backend.all_requests == []
        assert_balanced(agent)


def test_ca_bundle_is_used(make_agent: MakeAgent, authority: certificates.Authority) -> None:
    """A private authority is trusted when it is given."""
    with Backend(tls=authority.issue().server_context()) as backend:
        agent = make_agent(endpoint=backend.url, ca_bundle=str(authority.bundle))

        keys = capture(agent, 5)

        assert agent.flush(timeout=10.0)
        assert agent.stop(timeout=10.0)
        assert_delivered(agent, backend, keys)


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_ca_bundle_beats_the_environment(
    make_agent: MakeAgent,
    authority: certificates.Authority,
    stranger: certificates.Authority,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    """The setting wins over the variables that requests looks at."""
    monkeypatch.setenv(variable, str(stranger.bundle))
    with Backend(tls=authority.issue().server_context()) as backend:
        agent = make_agent(endpoint=backend.url, ca_bundle=str(authority.bundle))

        keys = capture(agent, 5)

        assert agent.flush(timeout=10.0)
        assert agent.stop(timeout=10.0)
        assert_delivered(agent, backend, keys)


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_environment_is_heard_without_a_setting(
    make_agent: MakeAgent,
    authority: certificates.Authority,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    """Machines that carry their authority in the environment need no setting."""
    monkeypatch.setenv(variable, str(authority.bundle))
    with Backend(tls=authority.issue().server_context()) as backend:
        agent = make_agent(endpoint=backend.url)

        keys = capture(agent, 5)

        assert agent.flush(timeout=10.0)
        assert agent.stop(timeout=10.0)
        assert_delivered(agent, backend, keys)


def test_verification_can_be_switched_off(
    make_agent: MakeAgent,
    authority: certificates.Authority,
    stranger: certificates.Authority,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Only by the setting, which wins over the environment, and with one line in the log."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(stranger.bundle))
    with Backend(tls=authority.issue().server_context()) as backend:
        agent = make_agent(endpoint=backend.url, verify_tls=False)

        keys = capture(agent, 5)
        assert agent.flush(timeout=10.0)
        keys += capture(agent, 5)

        assert agent.flush(timeout=10.0)
        assert agent.stop(timeout=10.0)
        assert_delivered(agent, backend, keys)
    lines = [line for line in caplog.records if line.levelno == logging.WARNING]
    assert sum("verify_tls" in line.getMessage() for line in lines) == 1


def test_client_certificate(
    make_agent: MakeAgent, authority: certificates.Authority, stranger: certificates.Authority
) -> None:
    """A backend that asks for a certificate gets ours."""
    context = authority.issue().server_context(clients_of=stranger)
    ours = stranger.issue("client.test")
    with Backend(tls=context) as backend:
        agent = make_agent(
            endpoint=backend.url,
            ca_bundle=str(authority.bundle),
            client_cert=(str(ours.certificate), str(ours.key)),
        )

        keys = capture(agent, 5)

        assert agent.flush(timeout=10.0)
        assert agent.stop(timeout=10.0)
        assert_delivered(agent, backend, keys)


def test_plain_answer_where_tls_is_expected(make_agent: MakeAgent, backend: Backend) -> None:
    """A backend that does not speak TLS gets nothing, and keeps nobody waiting."""
    errors = Errors()
    endpoint = backend.url.replace("http:", "https:")
    agent = make_agent(endpoint=endpoint, on_error=errors, timeout=0.3)
    capture(agent, 5)
    assert errors.wait()

    agent.stop(timeout=0.5)

    assert backend.received == []
    assert_balanced(agent)


@pytest.mark.parametrize("machine", ["127.0.0.1", "default"])
def test_netrc_is_not_used(make_agent: MakeAgent, backend: Backend, machine: str) -> None:
    """Credentials of the user's own never go to the backend."""
    entry = "default" if machine == "default" else f"machine {machine}"
    netrc = Path("~/.netrc").expanduser()
    netrc.write_text(f"{entry} login me password mine\n")
    netrc.chmod(0o600)
    agent = make_agent()

    keys = capture(agent, 5)

    assert agent.flush(timeout=10.0)
    assert_delivered(agent, backend, keys)
    (request,) = backend.requests
    assert "authorization" not in request.headers
    assert request.headers["x-api-key"] == "test-key-0123456789"


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "ALL_PROXY", "setting"])
def test_proxy(
    make_agent: MakeAgent, backend: Backend, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Proxies of the environment and of the settings are used."""
    with Backend() as proxy:
        settings = {}
        if variable == "setting":
            settings["proxies"] = {"http": proxy.url}
        else:
            monkeypatch.setenv(variable, proxy.url)
        agent = make_agent(endpoint="http://collector.test", **settings)

        keys = capture(agent, 5)

        assert agent.flush(timeout=10.0)
        assert agent.stop(timeout=10.0)
        assert_delivered(agent, proxy, keys)
        assert proxy.requests[0].target == "http://collector.test/api/v1/events"
        assert backend.connections == 0


def test_credentials_of_a_proxy(make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that wants a password gets the one of its address."""
    with Backend() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//me:mine@"))
        agent = make_agent(endpoint="http://collector.test")

        keys = capture(agent, 5)

        assert agent.flush(timeout=10.0)
        assert agent.stop(timeout=10.0)
        assert_delivered(agent, proxy, keys)
        wanted = "Basic " + base64.b64encode(b"me:mine").decode()
        assert proxy.requests[0].headers["proxy-authorization"] == wanted


@pytest.mark.parametrize("hosts", ["127.0.0.1", "localhost,127.0.0.1", "127.0.0.0/8", "*"])
def test_no_proxy(
    make_agent: MakeAgent, backend: Backend, monkeypatch: pytest.MonkeyPatch, hosts: str
) -> None:
    """Exceptions of the environment are kept too."""
    with Backend() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", hosts)
        agent = make_agent()

        keys = capture(agent, 5)

        assert agent.flush(timeout=10.0)
        assert_delivered(agent, backend, keys)
        assert proxy.connections == 0


def test_proxy_that_is_away(
    make_agent: MakeAgent, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its proxy the agent waits; it never goes around it."""
    with Backend() as proxy:
        proxy.down()
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        errors = Errors()
        agent = make_agent(endpoint="http://collector.test", on_error=errors)
        keys = capture(agent, 5)
        assert errors.wait()
        proxy.up()

        assert agent.flush(timeout=15.0)
        assert agent.stop(timeout=10.0)
        assert_delivered(agent, proxy, keys)


def test_tls_through_a_proxy(
    make_agent: MakeAgent, authority: certificates.Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over HTTPS the proxy sees the host and nothing else."""
    context = authority.issue("collector.test").server_context()
    with Backend(tls=context) as backend, Tunnel(backend.port) as tunnel:
        monkeypatch.setenv("HTTPS_PROXY", tunnel.url)
        agent = make_agent(endpoint="https://collector.test", ca_bundle=str(authority.bundle))

        keys = capture(agent, 5)

        assert agent.flush(timeout=10.0)
        assert agent.stop(timeout=10.0)
        assert_delivered(agent, backend, keys)
        assert tunnel.targets == ["collector.test:443"]


def test_proxy_that_hangs(make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that never answers CONNECT holds neither flush nor stop."""
    with socket.create_server(("127.0.0.1", 0)) as stuck:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{stuck.getsockname()[1]}")
        agent = make_agent(endpoint="https://collector.test", timeout=60.0)
        capture(agent, 5)

        assert bounded(lambda: agent.flush(timeout=0.2)) is False
        assert bounded(lambda: agent.stop(timeout=0.2)) is False
        assert_balanced(agent)


def test_key_is_not_logged(
    make_agent: MakeAgent, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """No line of any logger holds the key or anything of an event, even at DEBUG and in trouble."""
    caplog.set_level(logging.DEBUG)
    backend.down()
    errors = Errors()
    agent = make_agent(on_error=errors, api_key="very-secret-key-12345")
    keys = capture(agent, 5, reason="very-secret-reason")
    assert errors.wait(2)
    backend.up()

    assert agent.flush(timeout=15.0)
    assert_delivered(agent, backend, keys)
    assert "very-secret" not in caplog.text
    assert "very-secret" not in " ".join(map(repr, errors.seen))
    assert "very-secret" not in repr(agent) + repr(agent.config) + repr(agent.stats())
