"""AgentConfig: every setting, its default and what is allowed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from guardagent import _settings as check
from guardagent._settings import setting
from guardagent.errors import ConfigError

__all__ = ["AgentConfig", "Overflow"]

Overflow = Literal["drop_oldest", "drop_newest", "block", "raise"]

_ENVIRONMENT_PREFIX = "GUARDAGENT_"
_DAY = 86_400.0


@attrs.frozen(kw_only=True)
class AgentConfig:
    """Settings of one agent; frozen, checked, and with a `repr` that shows no secret.

    Durations are seconds, sizes are bytes. See the manual's page "Configuration" for each field.

    Raises:
        ConfigError: names the field, the form of the value and what is allowed.
    """

    api_key: str | Callable[[], str] | Path | None = setting(
        check.secret(check.clean_text, none="None (disabled)"),
        "Key of the backend. A callable or the path of a file is read for each batch, so that "
        "keys can be rotated. ``None`` disables the agent.",
        secret=True,
    )
    endpoint: str = setting(
        check.endpoint, "Base address of the backend.", "https://api.fastapi-guard.com"
    )
    project_id: str | None = setting(
        check.optional(check.clean_text), "Project the data belongs to.", None
    )
    buffer_size: int = setting(
        check.integer(1, 1_000_000),
        "Events and metrics pending before they are sent. A threshold, not a capacity.",
        100,
    )
    flush_interval: float = setting(
        check.number(0.01, _DAY), "Seconds after which pending ones are sent anyway.", 30.0
    )
    enable_metrics: bool = setting(check.flag, "Take metrics.", True)
    enable_events: bool = setting(check.flag, "Take events.", True)
    retry_attempts: int = setting(
        check.integer(0, 100), "How often a failed request is sent again.", 3
    )
    timeout: float = setting(
        check.number(0.05, 3_600.0), "Total seconds for one HTTP request.", 30.0
    )
    backoff_factor: float = setting(
        check.number(0.0, 3_600.0),
        "The delay before retry n is ``backoff_factor * 2 ** (n - 1)`` seconds, plus jitter, at "
        "most 60.",
        1.0,
    )
    sensitive_headers: list[str] = setting(
        check.names,
        "Names whose values become ``[REDACTED]``, in any spelling. Names of credentials "
        "(password, secret, ...) always do.",
        attrs.Factory(lambda: ["authorization", "cookie", "x-api-key"]),
        hashable=False,
    )
    max_payload_size: int = setting(
        check.integer(16, 1_048_576),
        "Bytes kept of a text in an event; a longer one is cut and marked.",
        1024,
    )
    spool: Any = setting(
        check.spool,
        "Where events wait for delivery: ``memory://``; ``sqlite:///path``, a file shared by the "
        "processes of one host; ``redis://...`` (also ``rediss://``, ``unix://``, "
        "``redis+sentinel://``, ``redis+cluster://``) or a client of redis-py, shared by many.",
        "memory://",
        hashable=False,
        shown=check.spool_shown,
    )
    queue_capacity: int = setting(
        check.integer(1, 10_000_000), "Events between ``capture`` and the spool.", 10_000
    )
    spool_max_records: int = setting(
        check.integer(1, 1_000_000_000),
        "Events the spool keeps: 100,000 in memory, 2,000,000 in a durable spool.",
        attrs.Factory(lambda self: 100_000 if self._is_in_memory else 2_000_000, takes_self=True),
    )
    spool_max_bytes: int = setting(
        check.integer(4_096, 2**50),
        "Bytes the spool keeps: 64 MiB in memory, 1 GiB in a durable spool.",
        attrs.Factory(lambda self: 2**26 if self._is_in_memory else 2**30, takes_self=True),
    )
    spool_lease: float = setting(
        check.number(0.5, 3_600.0),
        "Seconds after which other processes take over what one that was killed had claimed from "
        "a durable spool. A living one renews its claims.",
        15.0,
    )
    spool_fsync: bool = setting(
        check.flag,
        "Wait for the disk each time something is put into a spool in a file, so that not even a "
        "power cut loses it.",
        False,
    )
    overflow: Overflow = setting(
        check.choice("drop_oldest", "drop_newest", "block", "raise"),
        "What happens when the queue or the spool is full. ``block`` waits at most "
        "``block_timeout``; ``raise`` makes ``capture`` raise ``BufferFull``.",
        "drop_oldest",
    )
    block_timeout: float = setting(
        check.number(0.0, 3_600.0), "Seconds ``capture`` waits at most under ``block``.", 1.0
    )
    max_batch_size: int = setting(check.integer(1, 100_000), "Events in one request.", 500)
    max_batch_bytes: int = setting(
        check.integer(4_096, 64 * 1024 * 1024),
        "Bytes of one request before compression.",
        256 * 1024,
    )
    compression: bool = setting(check.flag, "Compress requests with gzip.", True)
    compression_threshold: int = setting(
        check.integer(0, 64 * 1024 * 1024), "Smaller requests are not compressed.", 1024
    )
    shutdown_timeout: float = setting(
        check.number(0.0, 3_600.0), "Seconds a normal exit or ``stop`` may take to deliver.", 5.0
    )
    dynamic_rule_interval: float = setting(
        check.number(0.05, _DAY), "Seconds between two polls of the dynamic rules.", 300.0
    )
    status_interval: float = setting(
        check.number(0.05, _DAY), "Seconds between two status reports.", 300.0
    )
    max_event_age: float | None = setting(
        check.optional(check.number(0.001, 365 * _DAY)),
        "Seconds after which an undelivered event is dropped and counted as expired.",
        None,
    )
    before_send: Callable[[Any], Any] | None = setting(
        check.optional(check.function),
        "Called with each event or metric before it is redacted and encoded, on the agent's "
        "thread; returns it, changed or not, or ``None`` to drop it. When it raises, the event is "
        "dropped, never sent.",
        None,
    )
    on_error: Callable[[str, BaseException, Mapping[str, Any]], object] | None = setting(
        check.optional(check.function),
        "Called as ``on_error(stage, exception, context)`` on the agent's thread.",
        None,
    )
    on_drop: Callable[[str, int], object] | None = setting(
        check.optional(check.function),
        "Called as ``on_drop(reason, n)`` when events were lost, on the agent's thread.",
        None,
    )
    payload_signing_secret: str | Callable[[], str] | Path | None = setting(
        check.secret(check.secret_text),
        "Signs each request's body with HMAC-SHA256 (``X-Payload-Signature``). May be rotated like "
        "``api_key``.",
        None,
        secret=True,
    )
    project_encryption_key: str | Callable[[], str] | Path | None = setting(
        check.secret(check.encryption_key),
        "32 bytes in base64: events and metrics are sent sealed with AES-256-GCM, never in plain "
        "text. Needs the extra ``crypto``. May be rotated like ``api_key``.",
        None,
        secret=True,
    )
    install_id: str | None = setting(
        check.optional(check.clean_text),
        "Identity of this installation; otherwise kept in ``~/.guard-agent/install-id``.",
        None,
    )
    guard_version: str | None = setting(
        check.optional(check.clean_text), "Version of the Guard library, sent along.", None
    )
    guard_core_version: str | None = setting(
        check.optional(check.clean_text), "Version of guard-core, sent along.", None
    )
    ca_bundle: str | None = setting(
        check.optional(check.existing_path),
        "Certificates to trust; beats ``REQUESTS_CA_BUNDLE``.",
        None,
    )
    client_cert: str | tuple[str, str] | None = setting(
        check.optional(check.certificate),
        "Client certificate: a file, or a pair of certificate and key.",
        None,
    )
    verify_tls: bool = setting(
        check.flag, "False accepts any certificate; says so once in the log.", True
    )
    proxies: Mapping[str, str] | None = setting(
        check.optional(check.proxies),
        "Proxies by scheme; otherwise those of the environment.",
        None,
        secret=True,
        hashable=False,
    )
    deliver: bool = setting(
        check.flag,
        "Deliver from this process. ``False`` leaves it to others, such as ``guardagent relay``, "
        "and needs a spool that they can reach.",
        True,
    )
    flush_on_sigterm: bool = setting(
        check.flag,
        "Install a SIGTERM handler that delivers what is pending and then hands the signal on.",
        False,
    )

    def __attrs_post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            ConfigError: names both fields.
        """
        if self._is_in_memory and not self.deliver:
            raise ConfigError(
                "deliver: given False, allowed: True, because what is in a memory:// spool can be"
                " delivered by its own process only (see spool)"
            )

    @property
    def _is_in_memory(self) -> bool:
        return bool(self.spool == "memory://")

    @property
    def is_enabled(self) -> bool:
        """Tell whether there is an api_key; without one the agent does nothing at all."""
        return self.api_key is not None

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], /, **overrides: Any) -> AgentConfig:
        """Build from a mapping, such as Django's or Flask's settings; names in any case.

        Texts are read by the field's type, so values may come from an ini file. Without an
        api_key the agent is disabled.

        Raises:
            ConfigError: an unknown name (with the one that was probably meant) or a wrong value.
        """
        values: dict[str, Any] = {"api_key": None}
        for name, value in {**mapping, **overrides}.items():
            field = _field(name)
            text = isinstance(value, str)
            values[field.name] = check.parse(field.name, str(field.type), value) if text else value
        return cls(**values)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, /, **overrides: Any) -> AgentConfig:
        """Build from `GUARDAGENT_<NAME>` variables; arguments beat them.

        Unknown variables are left alone: they may belong to another version. An empty or missing
        `GUARDAGENT_API_KEY` disables the agent.

        Raises:
            ConfigError: a wrong value.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for field in attrs.fields(cls):
            text = environ.get(_ENVIRONMENT_PREFIX + field.name.upper(), "")
            if text.strip():
                values[field.name] = check.parse(field.name, str(field.type), text)
        given = {_field(name).name: value for name, value in overrides.items()}
        return cls(**{"api_key": None, **values, **given})


def _field(name: object) -> Any:
    fields = {field.name: field for field in attrs.fields(AgentConfig)}
    field = fields.get(name.lower()) if isinstance(name, str) else None
    if field is None:
        import difflib

        near = difflib.get_close_matches(str(name).lower(), fields, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{name}: there is no such setting{hint}")
    return field
