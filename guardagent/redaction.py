"""What must never leave the process: values under sensitive names, and credentials inside texts.

Owns: which names are sensitive and what a credential looks like. In: a snapshot's values. Out:
the same with secrets replaced by `[REDACTED]` and long texts cut. Pure; the work is linear in the
size of what is kept, whatever the text holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["ALWAYS_SENSITIVE", "REDACTED", "Redactor"]

REDACTED = "[REDACTED]"

#: Names that are credentials in any application, beside those of `sensitive_headers`.
ALWAYS_SENSITIVE = (
    "proxy-authorization",
    "set-cookie",
    "x-auth-token",
    "x-csrf-token",
    "api-key",
    "access-token",
    "refresh-token",
    "id-token",
    "client-secret",
    "secret-key",
    "private-key",
    "password",
    "passwd",
    "secret",
)

#: Deeper JSON in a text is not followed; `snapshot` bounds everything else.
_JSON_DEPTH = 10
_JSON_MAX = 8_192
#: How much more than is kept is searched, so that a secret cut in two is still recognised.
_MARGIN = 1_024
_NAMES_KEPT = 4_096

_SCHEME = re.compile(
    r"(?i:\bbearer)\s{1,8}[A-Za-z0-9._~+/=-]+"
    r"|(?i:\bbasic)\s{1,8}(?=[A-Za-z+/]*[0-9A-Z=])[A-Za-z0-9+/]{4,}={0,2}"
)
_USERINFO = re.compile(r"://[^\s/?#]*@")
_USERINFO_CUT = re.compile(r"://[^\s/?#@]*:[^\s/?#@]*\Z")
_ASSIGNED = re.compile(r"([A-Za-z0-9_.-]{1,64})(\\?[\"']?\s{0,8}(?:=|:|%3[Dd])\s{0,8})")
_AFTER_EQUALS = re.compile(r"\\?\"[^\"]*\"?|'[^']*'?|[^\s&;,\"'<>]+")
_AFTER_COLON = re.compile(r"\\?\"[^\"]*\"?|'[^']*'?|[^\r\n\"'}]+")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SEPARATORS = str.maketrans("", "", "-_. \t\r\n")

#: Cheap signs that a text may hold a credential; without one of them no pattern is tried.
_SIGNS = ("=", "@", ": ", '"', "earer", "EARER", "asic ", "ASIC ", "%3")


class Redactor:
    """Knows the sensitive names of one configuration.

    Args:
        names: header or field names; `X-Api-Key`, `x_api_key`, `HTTP_X_API_KEY` and `xApiKey`
            are the same name.
        max_text_bytes: UTF-8 bytes kept of one text; the rest gives way to a marker.
    """

    def __init__(self, names: Iterable[str], max_text_bytes: int) -> None:
        self._names = frozenset(_fold(name) for name in (*names, *ALWAYS_SENSITIVE))
        self.max_text_bytes = max_text_bytes
        #: No text this short (in characters) can be too long (in bytes).
        self.short = max_text_bytes // 4
        #: Names found not to be sensitive, for asking about many at once.
        self.shown: set[str] = set()

    def hides(self, name: str) -> bool:
        """Tell whether values under this name are secret."""
        if name in self.shown:
            return False
        if self._is_sensitive(name):
            return True
        if len(self.shown) >= _NAMES_KEPT:
            self.shown.clear()  # names may come from an attacker: remember few
        if name.isascii() and len(name) <= 64:
            self.shown.add(name)
        return False

    def _is_sensitive(self, name: str) -> bool:
        folded = _fold(name[:256])
        return folded in self._names or (
            folded.startswith("http") and folded[4:] in self._names  # WSGI's HTTP_COOKIE
        )

    def text(self, text: str, depth: int = 0) -> str:
        """Mask credentials in a text, cut it to the bound and make it valid Unicode."""
        whole = len(text)
        cut = whole > self.max_text_bytes + _MARGIN
        if text[:1].isspace() or text[:1] in '{["':
            masked = self._json(text, depth) if whole <= _JSON_MAX else None
            if masked is not None:
                return self._fit(masked, whole)
        if cut:
            text = text[: self.max_text_bytes + _MARGIN]
        if cut or any(sign in text for sign in _SIGNS):
            text = self._credentials(text, cut)
        return self._fit(text, whole)

    def tree(self, value: Any, leaf: Callable[[str, Any], Any], depth: int = 0) -> Any:
        """Walk dicts and lists, hide what sensitive names hold, apply `leaf(name, value)` elsewhere.

        Keys must be text already; depth is bounded by whoever built the tree.
        """
        if type(value) is dict:
            return {
                name: REDACTED if self.hides(name) else self._branch(name, item, leaf, depth)
                for name, item in value.items()
            }
        return [self._branch("", item, leaf, depth) for item in value]

    def _branch(self, name: str, item: Any, leaf: Callable[[str, Any], Any], depth: int) -> Any:
        kind = type(item)
        if kind is dict or kind is list:
            return self.tree(item, leaf, depth + 1) if depth < _JSON_DEPTH else REDACTED
        return leaf(name, item)

    def _json(self, text: str, depth: int) -> str | None:
        """Redact a JSON document inside a text by its structure; None when it is not one."""
        if depth >= _JSON_DEPTH:
            return REDACTED
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            return None

        def leaf(_name: str, value: Any) -> Any:
            return self.text(value, depth + 1) if type(value) is str else value

        if type(document) in (dict, list):
            document = self.tree(document, leaf, depth + 1)
        elif type(document) is str:
            document = self.text(document, depth + 1)
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"))

    def _credentials(self, text: str, cut: bool) -> str:
        text = _SCHEME.sub(lambda match: f"{match[0].split()[0]} {REDACTED}", text)
        text = _USERINFO.sub(f"://{REDACTED}@", text)
        if cut:
            text = _USERINFO_CUT.sub(f"://{REDACTED}", text)
        return self._assignments(text)

    def _assignments(self, text: str) -> str:
        """Mask `name=value`, `name: value` and `"name": "value"` for sensitive names."""
        kept: list[str] = []
        end = 0
        for match in _ASSIGNED.finditer(text):
            if match.start() < end or not self.hides(match[1]):
                continue
            value = _AFTER_COLON if ":" in match[2] else _AFTER_EQUALS
            found = value.match(text, match.end())
            if found is not None:
                kept += text[end : match.end()], REDACTED
                end = found.end()
        return "".join(kept) + text[end:] if kept else text

    def _fit(self, text: str, whole: int) -> str:
        if not text.isascii():
            text = _SURROGATE.sub("\ufffd", text)
        if len(text) <= self.short:
            return text
        limit = self.max_text_bytes
        data = text[: limit + 1].encode()
        if len(data) <= limit and len(text) <= limit:
            return text
        # Cutting bytes may split the last character; "ignore" drops just that one.
        return data[:limit].decode("utf-8", "ignore") + f"...[truncated, {whole} characters]"


def _fold(name: str) -> str:
    return name.translate(_SEPARATORS).lower()
