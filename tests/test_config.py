"""Settings: names, defaults, what is allowed, how a wrong one is refused; no secret in sight."""

from __future__ import annotations

import base64
import copy
import functools
import math
import pickle
import re
import sys
from collections import UserDict
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest

from guardagent import AgentConfig, ConfigError

SECRET = "s3cr3tVALUE"
KEY = "key-0123456789"


def config(**settings: Any) -> AgentConfig:
    return AgentConfig(**{"api_key": KEY, **settings})


def refused(message: str) -> Any:
    return pytest.raises(ConfigError, match=rf"^{re.escape(message)}$")


def callback(*_: object) -> None:
    """Stands for a function of the application."""


#: DESIGN.md 3.
SPECIFIED: dict[str, Any] = {
    "endpoint": "https://api.fastapi-guard.com",
    "project_id": None,
    "buffer_size": 100,
    "flush_interval": 30.0,
    "enable_metrics": True,
    "enable_events": True,
    "retry_attempts": 3,
    "timeout": 30.0,
    "backoff_factor": 1.0,
    "sensitive_headers": ["authorization", "cookie", "x-api-key"],
    "max_payload_size": 1024,
}
OTHERS: dict[str, Any] = {
    "spool": "memory://",
    "queue_capacity": 10_000,
    "spool_max_records": 100_000,
    "spool_max_bytes": 64 * 1024 * 1024,
    "spool_lease": 15.0,
    "spool_fsync": False,
    "overflow": "drop_oldest",
    "block_timeout": 1.0,
    "max_batch_size": 500,
    "max_batch_bytes": 262_144,
    "compression": True,
    "compression_threshold": 1024,
    "shutdown_timeout": 5.0,
    "dynamic_rule_interval": 300.0,
    "status_interval": 300.0,
    "max_event_age": None,
    "before_send": None,
    "on_error": None,
    "on_drop": None,
    "payload_signing_secret": None,
    "project_encryption_key": None,
    "install_id": None,
    "guard_version": None,
    "guard_core_version": None,
    "ca_bundle": None,
    "client_cert": None,
    "verify_tls": True,
    "proxies": None,
    "deliver": True,
    "flush_on_sigterm": False,
}
DEFAULTS = SPECIFIED | OTHERS
FLAGS = [name for name, default in DEFAULTS.items() if type(default) is bool and name != "deliver"]
INTEGERS = [name for name, default in DEFAULTS.items() if type(default) is int]
NUMBERS = [name for name, default in DEFAULTS.items() if type(default) is float]
NUMBERS += ["max_event_age"]
CALLABLES = ["before_send", "on_error", "on_drop"]
HEADER_TEXTS = ["project_id", "install_id", "guard_version", "guard_core_version"]
OPTIONAL = [name for name, default in DEFAULTS.items() if default is None]


# --------------------------------------------------------------------------------------- the fields


def test_only_the_key_is_required() -> None:
    """Every other setting has its documented default."""
    ours = AgentConfig(api_key=KEY)

    assert {name: getattr(ours, name) for name in DEFAULTS} == DEFAULTS
    assert {name: type(getattr(ours, name)) for name in DEFAULTS} == {
        name: type(default) for name, default in DEFAULTS.items()
    }
    assert ours.api_key == KEY


def test_the_key_must_be_given() -> None:
    """An agent without a key is possible, but not by oversight."""
    with pytest.raises(TypeError, match=r"api_key"):
        AgentConfig()  # type: ignore[call-arg]


def test_these_are_all_settings() -> None:
    """A setting that no test names does not exist."""
    assert {field.name for field in attrs.fields(AgentConfig)} == {"api_key", *DEFAULTS}


def test_every_setting_is_explained() -> None:
    """The manual's page is made of these sentences."""
    for field in attrs.fields(AgentConfig):
        assert field.metadata["doc"].endswith("."), field.name


def test_settings_are_given_by_name_only() -> None:
    """Positional arguments would tie every caller to the order."""
    with pytest.raises(TypeError):
        AgentConfig(KEY)  # type: ignore[misc]


def test_settings_do_not_change() -> None:
    """An agent can rely on them."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        config().timeout = 1.0  # type: ignore[misc]


def test_defaults_are_not_shared() -> None:
    """Two configurations have two lists of names."""
    config().sensitive_headers.append("x")

    assert config().sensitive_headers == SPECIFIED["sensitive_headers"]


def test_a_given_list_is_copied() -> None:
    """Changing it afterwards changes no setting."""
    names, proxies = ["a"], {"http": "http://proxy"}

    ours = config(sensitive_headers=names, proxies=proxies)
    names.append("b")
    proxies["https"] = "x"

    assert ours.sensitive_headers == ["a"]
    assert ours.proxies == {"http": "http://proxy"}


def test_configurations_are_values() -> None:
    """Equal settings make equal, hashable, copyable configurations."""
    settings: dict[str, Any] = {
        "proxies": {"https": "http://proxy"},
        "sensitive_headers": ["a"],
        "payload_signing_secret": SECRET,
        "on_drop": callback,
    }
    one, other = config(**settings), config(**settings)

    assert one == other
    assert hash(one) == hash(other)
    assert one != config()
    assert pickle.loads(pickle.dumps(one)) == one
    assert copy.deepcopy(one) == one
    assert attrs.evolve(one, timeout=2) == config(**settings, timeout=2)


# ------------------------------------------------------------------------------------------ the key


@pytest.mark.parametrize("key", [KEY, f"  {KEY}\n", callback, Path("/run/secrets/key"), None])
def test_a_key_may_be_text_a_function_or_a_file(key: Any) -> None:
    """Functions and files are read for each batch; spaces around a text are an accident."""
    ours = config(api_key=key)

    assert ours.api_key == (key.strip() if isinstance(key, str) else key)
    assert ours.is_enabled == (key is not None)


@pytest.mark.parametrize("key", ["", "  ", f"{SECRET}\n{SECRET}", f"{SECRET}é", f"{SECRET}\x00"])
def test_a_key_that_fits_no_header_is_refused(key: str) -> None:
    """The refusal does not show it."""
    with refused(
        "api_key: given a value of type str, allowed: printable ASCII text that is not empty; "
        "or a callable, a pathlib.Path, or None (disabled)"
    ):
        config(api_key=key)


@pytest.mark.parametrize("key", [5, SECRET.encode(), [SECRET]])
def test_a_key_of_another_type_is_refused(key: Any) -> None:
    """Only its type is told."""
    with pytest.raises(ConfigError, match=r"^api_key: given a value of type") as caught:
        config(api_key=key)

    assert SECRET not in str(caught.value)


# ---------------------------------------------------------------------------------------- endpoints


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://guard.example.com", "https://guard.example.com"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://[::1]:8000/", "http://[::1]:8000"),
        (" https://guard.example.com/// ", "https://guard.example.com"),
        ("https://guard.example.com/api/v1", "https://guard.example.com"),
        ("https://guard.example.com/api/v1/", "https://guard.example.com"),
        ("https://guard.example.com/base/api/v1", "https://guard.example.com/base"),
        ("https://guard.example.com/base", "https://guard.example.com/base"),
        ("HTTPS://guard.example.com", "HTTPS://guard.example.com"),
    ],
)
def test_endpoints(given: str, kept: str) -> None:
    """A base address over http or https; what the agent appends itself is dropped."""
    assert config(endpoint=given).endpoint == kept


@pytest.mark.parametrize(
    "given",
    [
        "", "guard.example.com", "ftp://guard.example.com", "https://", "https:///path", "//host",
        "https://host:port", "https://host:99999", "https://host:0", "https://[::1", "https://host?a=b",
        "https://host/#top", "https://exa mple.com", "https://host\n.example.com", "https://host/\x00",
        "file:///etc/passwd", "javascript:alert(1)", 5, None, b"https://host", ["https://host"],
    ],
)  # fmt: skip
def test_what_is_no_endpoint_is_refused(given: Any) -> None:
    """The refusal shows an example."""
    with pytest.raises(
        ConfigError,
        match=r"^endpoint: given .*, allowed: .* such as https://guard.example.com$",
    ):
        config(endpoint=given)


@pytest.mark.parametrize(
    "given",
    [
        f"https://user:{SECRET}@host", f"https://{SECRET}@host", f"https://host/?api_key={SECRET}",
        f"https://host/#{SECRET}", f"ftp://user:{SECRET}@host", f"https://host:{SECRET}",
    ],
)  # fmt: skip
def test_credentials_in_an_endpoint_are_refused_unseen(given: str) -> None:
    """They would end in logs; the refusal is not the first of these."""
    with pytest.raises(ConfigError, match=r"^endpoint: given ") as caught:
        config(endpoint=given)

    if not given.startswith(("https://host:", "https://host/#")):
        assert SECRET not in str(caught.value)


# ----------------------------------------------------------------------------------- other settings


@pytest.mark.parametrize("name", FLAGS)
def test_switches(name: str) -> None:
    """True or False and nothing else."""
    for value in (True, False):
        assert getattr(config(**{name: value}), name) is value
    for wrong in (1, 0, "true", None):
        with pytest.raises(ConfigError, match=rf"^{name}: given .*, allowed: True or False$"):
            config(**{name: wrong})


#: The smallest and the largest value of each number.
BOUNDS: dict[str, tuple[float, float]] = {
    "buffer_size": (1, 1_000_000),
    "flush_interval": (0.01, 86_400.0),
    "retry_attempts": (0, 100),
    "timeout": (0.05, 3_600.0),
    "backoff_factor": (0.0, 3_600.0),
    "max_payload_size": (16, 1_048_576),
    "queue_capacity": (1, 10_000_000),
    "spool_max_records": (1, 1_000_000_000),
    "spool_max_bytes": (4_096, 2**50),
    "spool_lease": (0.5, 3_600.0),
    "block_timeout": (0.0, 3_600.0),
    "max_batch_size": (1, 100_000),
    "max_batch_bytes": (4_096, 64 * 1024 * 1024),
    "compression_threshold": (0, 64 * 1024 * 1024),
    "shutdown_timeout": (0.0, 3_600.0),
    "dynamic_rule_interval": (0.05, 86_400.0),
    "status_interval": (0.05, 86_400.0),
    "max_event_age": (0.001, 365 * 86_400.0),
}


def test_every_number_has_bounds() -> None:
    """The table above is complete."""
    assert set(BOUNDS) == {*INTEGERS, *NUMBERS}


@pytest.mark.parametrize("name", INTEGERS)
def test_whole_numbers(name: str) -> None:
    """From the lowest to the highest, as exact integers."""
    low, high = BOUNDS[name]

    for value in (low, high):
        assert getattr(config(**{name: value}), name) == value
    for wrong in (low - 1, high + 1, float(high), True, "5", None, math.nan, 10**400):
        with pytest.raises(
            ConfigError, match=rf"^{name}: given .*, allowed: a whole number from {low} to {high}$"
        ):
            config(**{name: wrong})


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers(name: str) -> None:
    """From the lowest to the highest, as floats."""
    low, high = BOUNDS[name]

    for value in (low, high, 2, 2.5):
        kept = getattr(config(**{name: value}), name)
        assert kept == value
        assert type(kept) is float
    wrong_ones: list[Any] = [low - 0.001, high + 1, math.nan, math.inf, True, "5", 10**400, 1j]
    for wrong in wrong_ones:
        allowed = f"a number from {low:g} to {high:g}"
        with pytest.raises(ConfigError, match=rf"^{name}: given .*, allowed: {re.escape(allowed)}"):
            config(**{name: wrong})


@pytest.mark.parametrize("name", HEADER_TEXTS)
def test_texts_that_become_headers(name: str) -> None:
    """Printable ASCII; a line break would add a header of somebody else's making."""
    assert getattr(config(**{name: " blue 1.0 "}), name) == "blue 1.0"
    for wrong in ("", "  ", "a\r\nX-Evil: 1", "é", 5, b"blue"):
        with pytest.raises(
            ConfigError,
            match=rf"^{name}: given .*, allowed: printable ASCII text that is not empty, or None$",
        ):
            config(**{name: wrong})


@pytest.mark.parametrize("name", CALLABLES)
def test_callbacks(name: str) -> None:
    """Anything callable."""
    for value in (callback, print, functools.partial(callback, 1), dict):
        assert getattr(config(**{name: value}), name) is value
    with refused(f"{name}: given 'print' (str), allowed: a callable, or None"):
        config(**{name: "print"})


@pytest.mark.parametrize("name", OPTIONAL)
def test_none_is_the_default_of_what_is_optional(name: str) -> None:
    """It may be said, too."""
    assert getattr(config(**{name: None}), name) is None


@pytest.mark.parametrize("value", ["drop_oldest", "drop_newest", "block", "raise"])
def test_overflow_policies(value: str) -> None:
    """The four of them."""
    assert config(overflow=value).overflow == value


@pytest.mark.parametrize("value", ["drop", "BLOCK", None, 5, ["block"]])
def test_an_unknown_policy_is_refused(value: Any) -> None:
    """The refusal lists those there are."""
    allowed = "allowed: one of drop_oldest, drop_newest, block, raise$"

    with pytest.raises(ConfigError, match=rf"^overflow: given .*, {allowed}"):
        config(overflow=value)


@pytest.mark.parametrize("value", [["a"], ("a", "b"), []])
def test_sensitive_names(value: Any) -> None:
    """Any sequence of texts becomes a list."""
    assert config(sensitive_headers=value).sensitive_headers == list(value)


@pytest.mark.parametrize("value", ["cookie", b"cookie", ["a", ""], ["a", 5], [" "], {"a"}, None])
def test_sensitive_names_that_would_hide_nothing_are_refused(value: Any) -> None:
    """A text alone would be read as a list of letters."""
    with pytest.raises(
        ConfigError, match=r"^sensitive_headers: given .*, allowed: a list of names$"
    ):
        config(sensitive_headers=value)


@pytest.mark.parametrize("value", ["memory://", "memory:", "memory"])
def test_spools(value: str) -> None:
    """The memory spool."""
    assert config(spool=value).spool == "memory://"


@pytest.mark.parametrize(
    "value",
    [
        "redis://localhost:6379/0",
        "rediss://u:p@host",
        "unix:///run/redis.sock?db=1",
        "redis+sentinel://a:26379,b:26379/main",
        "redis+cluster://host:7000",
    ],
)
def test_addresses_of_redis(value: str) -> None:
    """They are kept as they are; whether somebody answers is seen later."""
    assert config(spool=f" {value}\n").spool == value


def test_a_client_of_redis() -> None:
    """An application's own client may be given in place of an address."""
    import redis

    with redis.Redis() as client:
        ours = config(spool=client)

        assert ours.spool is client
        assert "spool=<Redis>" in repr(ours)
        assert hash(ours) == hash(config(spool=client))


def test_a_file_of_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three slashes begin a path from the folder at the start, four an absolute one."""
    monkeypatch.chdir(tmp_path)
    absolute = config(spool=f"sqlite:///{tmp_path}/a.db").spool

    relative = config(spool="sqlite:///a.db").spool
    monkeypatch.chdir("/")

    assert relative == absolute == f"sqlite:///{tmp_path}/a.db"


@pytest.mark.parametrize(
    "value",
    [
        *("", "sqlite:", "sqlite:///", "sqlite://x.db", "redis:", "redis://", "http://host"),
        *(5, None, b"memory://", object()),
    ],
)
def test_spools_that_do_not_exist_are_refused(value: Any) -> None:
    """Rather than silently kept in memory."""
    with pytest.raises(ConfigError, match=r"^spool: given .*, allowed: .*memory://"):
        config(spool=value)


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("", "the path of a file; .* is a folder"),
        ("/gone/spool.db", r"a path in a folder that exists; .*/gone does not \(four slashes"),
        ("/" + "x" * 5_000, "the path of a file"),
        ("/\0", "the path of a file"),
    ],
)
def test_files_that_cannot_be_are_refused(tmp_path: Path, name: str, allowed: str) -> None:
    """A folder, a folder that is not there, and what no file system takes."""
    with pytest.raises(ConfigError, match=rf"^spool: given .*, allowed: {allowed}"):
        config(spool=f"sqlite:///{tmp_path}{name}")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("memory://", "'memory://'"),
        (f"redis://u:{SECRET}@host:1/2?password={SECRET}", "'redis://host:1/2'"),
        (f"redis+sentinel://:{SECRET}@a,b/main", "'redis+sentinel://a,b/main'"),
        (f"unix:///run/s?password={SECRET}", "'unix:///run/s'"),
        (f"redis://u:{SECRET}?x@host:1/2", "'redis://'"),
        (f"redis://host:1/2?password=x@{SECRET}", "'redis://'"),
        (f"rediss://u:{SECRET}@{SECRET}@host", "'rediss://host'"),
    ],
)
def test_a_spool_is_shown_without_its_password(value: str, shown: str) -> None:
    """Nor with what else its address asks for."""
    assert f"spool={shown}, " in repr(config(spool=value))
    assert SECRET not in repr(config(spool=value))


@pytest.mark.parametrize("value", ["sqlite:////tmp/x.db", "redis://host"])
def test_a_durable_spool_is_larger(value: str) -> None:
    """Its bounds are of disks and servers, unless others are given."""
    default = config(spool=value)
    given = config(spool=value, spool_max_records=10, spool_max_bytes=5_000)

    assert (default.spool_max_records, default.spool_max_bytes) == (2_000_000, 1024**3)
    assert (given.spool_max_records, given.spool_max_bytes) == (10, 5_000)


def test_certificates(tmp_path: Path) -> None:
    """Paths of files that are there, given as text or Path."""
    file = tmp_path / "ca.pem"
    file.touch()

    assert config(ca_bundle=file).ca_bundle == str(file)
    assert config(ca_bundle=str(tmp_path)).ca_bundle == str(tmp_path)
    assert config(client_cert=str(file)).client_cert == str(file)
    assert config(client_cert=[file, str(file)]).client_cert == (str(file), str(file))


@pytest.mark.parametrize("name", ["ca_bundle", "client_cert"])
@pytest.mark.parametrize("value", ["/no/such/file", "", "a\x00b", "x" * 5_000, 5, b"/", []])
def test_certificates_that_are_not_there_are_refused(name: str, value: Any) -> None:
    """At once, not at the first delivery."""
    with pytest.raises(
        ConfigError,
        match=rf"^{name}: given .*allowed: the path of an existing file or folder, or None$",
    ):
        config(**{name: value})


@pytest.mark.parametrize(
    "value", [("/", "/no/such/file"), ("/no/such/file", "/"), ("/", 5), ("/", "/", "/")]
)
def test_a_certificate_needs_its_key(value: Any) -> None:
    """Both files of a pair are looked for."""
    with pytest.raises(ConfigError, match=r"^client_cert: given "):
        config(client_cert=value)


@pytest.mark.parametrize("value", [{}, {"https": "http://proxy:3128"}, UserDict(http="http://p")])
def test_proxies(value: Any) -> None:
    """A mapping as requests takes it."""
    assert config(proxies=value).proxies == dict(value)


@pytest.mark.parametrize("value", ["http://proxy", {"http": None}, {5: "http://p"}, ["http"]])
def test_what_are_no_proxies_is_refused(value: Any) -> None:
    """The refusal says what they are."""
    with pytest.raises(
        ConfigError,
        match=r"^proxies: given .*, allowed: a mapping of scheme to proxy address, or None$",
    ):
        config(proxies=value)


@pytest.mark.parametrize("value", ["", 5, SECRET.encode(), [SECRET]])
def test_what_is_no_secret_is_refused_unseen(value: Any) -> None:
    """Only its type is told."""
    with refused(
        f"payload_signing_secret: given a value of type {type(value).__name__}, "
        "allowed: text that is not empty; or a callable, a pathlib.Path, or None"
    ):
        config(payload_signing_secret=value)


def test_others_deliver_from_a_durable_spool_only() -> None:
    """What is in memory can be delivered by nobody else; what others can reach can."""
    spooling = config(spool="redis://host", deliver=False)

    assert spooling.deliver is False
    assert config(deliver=True).deliver is True
    with pytest.raises(ConfigError, match=r"^deliver: given False, allowed: True, because"):
        config(deliver=False)
    for wrong in (1, None, "true"):
        with pytest.raises(ConfigError, match=r"^deliver: given .*, allowed: True or False$"):
            config(deliver=wrong)


@pytest.mark.parametrize("name", ["api_key", "payload_signing_secret", "project_encryption_key"])
@pytest.mark.parametrize("source", [lambda: "later", Path("later")], ids=["callable", "file"])
def test_secrets_that_change(name: str, source: Any) -> None:
    """What gives them is kept; nothing is asked of it before they are needed."""
    made = AgentConfig(**{"api_key": SECRET, name: source})

    assert getattr(made, name) is source
    assert "later" not in repr(made)


RAW_KEY = bytes(range(224, 256))


@pytest.mark.parametrize(
    "written",
    [
        base64.b64encode(RAW_KEY).decode(),
        base64.urlsafe_b64encode(RAW_KEY).decode(),
        base64.b64encode(RAW_KEY).decode().rstrip("="),
        f" {base64.b64encode(RAW_KEY).decode()}\n",
    ],
    ids=["standard", "urlsafe", "unpadded", "spaces"],
)
def test_encryption_keys(written: str) -> None:
    """32 bytes in either alphabet of base64, padded or not."""
    kept = config(project_encryption_key=written).project_encryption_key

    assert kept is not None
    assert base64.urlsafe_b64decode(kept) == RAW_KEY


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        SECRET,
        base64.b64encode(RAW_KEY[1:]).decode(),
        base64.b64encode(RAW_KEY * 2).decode(),
        "é",
        "a",
        RAW_KEY,
        5,
    ],
    ids=["empty", "text", "short", "long", "letter", "lone", "bytes", "number"],
)
def test_what_is_no_encryption_key_is_refused_unseen(wrong: Any) -> None:
    """There is no way back to plain text, so a wrong key is an error at once."""
    with refused(
        f"project_encryption_key: given a value of type {type(wrong).__name__}, "
        "allowed: 32 bytes in base64; or a callable, a pathlib.Path, or None"
    ):
        config(project_encryption_key=wrong)


# ------------------------------------------------------------------------------------------ secrets


@pytest.mark.parametrize(
    "settings",
    [
        {"api_key": SECRET},
        {"api_key": functools.partial(callback, SECRET)},
        {"api_key": Path(f"/{SECRET}")},
        {"payload_signing_secret": SECRET},
        {"project_encryption_key": SECRET * 3 + "AAAAAAAAAA"},
        {"proxies": {"https": f"http://user:{SECRET}@proxy:3128"}},
    ],
    ids=["key", "function", "file", "signing", "encryption", "proxy"],
)
def test_no_secret_is_shown(settings: dict[str, Any]) -> None:
    """Neither repr nor str of a configuration gives one away."""
    ours = config(**settings)

    assert SECRET not in repr(ours) + str(ours) + f"{ours}"


def test_what_is_no_secret_is_shown() -> None:
    """A repr is for looking at settings."""
    shown = repr(config(project_id="blue", timeout=2.5))

    assert "project_id='blue'" in shown
    assert "timeout=2.5" in shown
    assert "api_key='***'" in shown
    assert "payload_signing_secret=None" in shown


# ------------------------------------------------------------------------------------- from mapping


@pytest.mark.parametrize("kind", [dict, UserDict])
def test_settings_from_a_mapping(kind: Any) -> None:
    """Names in any case, values of the right type or as text."""
    given = {
        "API_KEY": f" {KEY} ",
        "timeout": 2,
        "Buffer_Size": "7",
        "FLUSH_INTERVAL": " 0.5 ",
        "enable_metrics": "off",
        "sensitive_headers": "a, b,,c ",
        "overflow": "block",
        "max_event_age": "",
        "on_drop": callback,
        "payload_signing_secret": f" {SECRET} ",
    }

    ours = AgentConfig.from_mapping(kind(given))

    assert ours == AgentConfig(
        api_key=KEY,
        timeout=2.0,
        buffer_size=7,
        flush_interval=0.5,
        enable_metrics=False,
        sensitive_headers=["a", "b", "c"],
        overflow="block",
        on_drop=callback,
        payload_signing_secret=f" {SECRET} ",
    )


def test_a_mapping_without_a_key_is_a_disabled_agent() -> None:
    """Nothing else may be wrong with it."""
    for mapping in ({}, {"api_key": None}, {"api_key": ""}, {"api_key": "  "}):
        assert not AgentConfig.from_mapping(mapping).is_enabled


def test_arguments_beat_the_mapping() -> None:
    """What is said in the call is meant."""
    ours = AgentConfig.from_mapping({"timeout": 2, "API_KEY": KEY}, timeout=3, project_id="blue")

    assert (ours.timeout, ours.project_id, ours.api_key) == (3.0, "blue", KEY)


@pytest.mark.parametrize("source", ["from_mapping", "from_env"])
def test_an_unknown_argument_is_refused_with_a_hint(source: str) -> None:
    """The setting that was probably meant is named."""
    with refused("time_out: there is no such setting; did you mean timeout?"):
        getattr(AgentConfig, source)({}, time_out=3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bufer_size", "bufer_size: there is no such setting; did you mean buffer_size?"),
        ("API-KEY", "API-KEY: there is no such setting; did you mean api_key?"),
        ("zzz", "zzz: there is no such setting"),
        (5, "5: there is no such setting"),
    ],
)
def test_an_unknown_name_is_refused(name: Any, message: str) -> None:
    """A misspelt setting is not silently ignored."""
    with refused(message):
        AgentConfig.from_mapping({name: SECRET})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("timeout", "fast", "timeout: given 'fast' (str), allowed: float"),
        ("timeout", "nan", "timeout: given nan (float), allowed: a number from 0.05 to 3600"),
        ("timeout", "", "timeout: given '' (str), allowed: float"),
        ("buffer_size", "1.5", "buffer_size: given '1.5' (str), allowed: int"),
        (
            "buffer_size",
            "0",
            "buffer_size: given 0 (int), allowed: a whole number from 1 to 1000000",
        ),
        ("compression", "maybe", "compression: given 'maybe' (str), allowed: bool"),
        ("sensitive_headers", 5, "sensitive_headers: given 5 (int), allowed: a list of names"),
        ("before_send", "print", "before_send: given 'print' (str), allowed: a callable, or None"),
    ],
)
def test_a_wrong_text_is_refused(name: str, text: Any, message: str) -> None:
    """The refusal names the setting, what was given and what is allowed."""
    with refused(message):
        AgentConfig.from_mapping({name: text})


@pytest.mark.parametrize("text", ["1", "true", "TRUE", "Yes", " on "])
def test_texts_that_mean_yes(text: str) -> None:
    """As people write it."""
    assert AgentConfig.from_mapping({"flush_on_sigterm": text}).flush_on_sigterm is True


@pytest.mark.parametrize("text", ["0", "false", "False", "NO", "off"])
def test_texts_that_mean_no(text: str) -> None:
    """As people write it."""
    assert AgentConfig.from_mapping({"compression": text}).compression is False


# --------------------------------------------------------------------------------- from environment


def test_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting has a variable."""
    monkeypatch.setenv("GUARDAGENT_API_KEY", KEY)
    monkeypatch.setenv("GUARDAGENT_PROJECT_ID", "blue")
    monkeypatch.setenv("GUARDAGENT_TIMEOUT", "2.5")

    assert AgentConfig.from_env() == AgentConfig(api_key=KEY, project_id="blue", timeout=2.5)


#: A text for each setting that a text can stand for, and what it becomes.
WRITTEN: dict[str, tuple[str, Any]] = {
    "api_key": (f" {KEY}\n", KEY),
    "endpoint": ("http://localhost:8000/", "http://localhost:8000"),
    "project_id": ("blue", "blue"),
    "overflow": ("raise", "raise"),
    "spool": ("memory://", "memory://"),
    "sensitive_headers": ("a,b", ["a", "b"]),
    "payload_signing_secret": (SECRET, SECRET),
    "install_id": ("i", "i"),
    "guard_version": ("1", "1"),
    "guard_core_version": ("2", "2"),
    "project_encryption_key": (43 * "A", 43 * "A" + "="),
    "deliver": ("true", True),
    "ca_bundle": ("/", "/"),
    "client_cert": ("/", "/"),
    **dict.fromkeys(FLAGS, ("no", False)),
    **dict.fromkeys(NUMBERS, ("50", 50.0)),
    **{name: ("5000" if name.endswith("bytes") else "50",) * 2 for name in INTEGERS},
}


@pytest.mark.parametrize("name", WRITTEN)
def test_every_variable_is_read(name: str) -> None:
    """By the type of its setting."""
    text, value = WRITTEN[name]

    ours = AgentConfig.from_env({f"GUARDAGENT_{name.upper()}": text})

    expected = int(value) if name in INTEGERS else value
    assert getattr(ours, name) == expected
    assert type(getattr(ours, name)) is type(expected)


@pytest.mark.parametrize("environ", [{}, {"GUARDAGENT_API_KEY": ""}, {"GUARDAGENT_API_KEY": " "}])
def test_no_key_in_the_environment_is_a_disabled_agent(environ: dict[str, str]) -> None:
    """An application starts without one."""
    assert AgentConfig.from_env(environ) == AgentConfig(api_key=None)


def test_variables_that_are_empty_or_foreign_are_left_alone() -> None:
    """They may belong to another version, or to nobody."""
    environ = {
        "GUARDAGENT_TIMEOUT": " ",
        "GUARDAGENT_NO_SUCH": "5",
        "TIMEOUT": "5",
        "guardagent_timeout": "5",
    }

    assert AgentConfig.from_env(environ) == AgentConfig(api_key=None)


def test_arguments_beat_the_environment() -> None:
    """What is said in the call is meant."""
    environ = {"GUARDAGENT_API_KEY": KEY, "GUARDAGENT_TIMEOUT": "2"}

    ours = AgentConfig.from_env(environ, timeout=3, api_key=None)

    assert (ours.timeout, ours.api_key) == (3.0, None)


@pytest.mark.parametrize(
    ("name", "text"), [("TIMEOUT", "fast"), ("COMPRESSION", "maybe"), ("BUFFER_SIZE", "9" * 5_000)]
)
def test_a_wrong_variable_is_refused(name: str, text: str) -> None:
    """The refusal is short and names the setting."""
    with pytest.raises(ConfigError, match=rf"^{name.lower()}: given ") as caught:
        AgentConfig.from_env({f"GUARDAGENT_{name}": text})

    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("API_KEY", f"{SECRET}\n{SECRET}"),
        ("ENDPOINT", f"https://user:{SECRET}@host"),
        ("PROXIES", f"http://user:{SECRET}@proxy"),
        ("SPOOL", f"rabbit://:{SECRET}@host"),
    ],
)
def test_a_wrong_variable_gives_no_secret_away(name: str, text: str) -> None:
    """Environments are full of secrets."""
    with pytest.raises(ConfigError) as caught:
        AgentConfig.from_env({f"GUARDAGENT_{name}": text})

    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_redis_may_be_in_the_middle_of_its_import(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread imports it while this one makes its settings, which name no client."""
    monkeypatch.setitem(sys.modules, "redis", ModuleType("redis"))

    assert AgentConfig(api_key="key", spool="redis://127.0.0.1/0").spool == "redis://127.0.0.1/0"
    with pytest.raises(ConfigError, match="spool"):
        AgentConfig(api_key="key", spool=object())
