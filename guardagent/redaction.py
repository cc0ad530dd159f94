"""What must never leave the process: values under sensitive names, and credentials inside texts.

Owns: which names are sensitive and what a credential looks like. In: a snapshot's values. Out:
the same with secrets replaced by `[REDACTED]` and long texts cut. Pure; the work is linear in the
size of what is kept, whatever the text holds. In doubt too much is hidden rather than too little.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote

__all__ = ["ALWAYS_SENSITIVE", "REDACTED", "Redactor", "with_keys"]

REDACTED = "[REDACTED]"

#: Names that are credentials in any application, beside those of `sensitive_headers`.
ALWAYS_SENSITIVE = (
    "proxy-authorization",
    "set-cookie",
    "cookies",
    "auth",
    "auth-token",
    "x-auth-token",
    "x-csrf-token",
    "csrf-token",
    "csrftoken",
    "token",
    "api-key",
    "access-token",
    "refresh-token",
    "id-token",
    "jwt",
    "session-id",
    "session-token",
    "x-session-token",
    "client-secret",
    "secret-key",
    "private-key",
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "credentials",
    "phpsessid",
    "jsessionid",
    "x-amz-signature",
    "x-goog-signature",
)

#: Deeper JSON in a text is not followed; `snapshot` bounds everything else.
_JSON_DEPTH = 10
_JSON_MAX = 8_192
#: How much more than is kept is searched, so that a secret cut in two is still recognised.
_MARGIN = 1_024
_NAMES_KEPT = 4_096
_SHORT = 64

_SCHEME = re.compile(
    r"(?i:\b(bearer|basic)(?:[ +]+(?:bearer|basic)\b)*)"
    r"(?:[^\S\r\n]|\+|%20|[:\"']){1,16}"
    r"([A-Za-z0-9._~+/-]+=*)(?![^\s\"',;&)}\]])"
)
_BASE64_SIGN = re.compile(r"[0-9A-Z=]")
_JWT = re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?")
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[^-]*(?:-----END|\Z)?")
_USERINFO = re.compile(r"//[^\s/?#]*@")
_USERINFO_CUT = re.compile(r"//[^\s/?#@]*:[^\s/?#@]*\Z")
#: A name and what stands between it and its value: `=`, `:`, `=>`, quotes, in any escaping.
#: A name begins where a word does, or long words would be searched from each of their letters.
_ASSIGNED = re.compile(
    r"(?<![A-Za-z0-9_.-])"
    r"([A-Za-z0-9_.-]{1,64}(?:(?:\[|%5[Bb])[A-Za-z0-9_.-]{0,64}(?:\]|%5[Dd])){0,4})"
    r"(\\{0,8}[\"']?\s{0,8}(?:=>|=|:|%3[DdAa])\s{0,8}|\\{0,8}[\"']\s{0,8},\s{0,8}(?=b?[\\\"']))"
)
_QUOTED = re.compile(
    r"[bB]?(?:\"(?:[^\"\\]|\\.|\"\")*\"?|'(?:[^'\\]|\\.|'')*'?|(?P<esc>\\{1,8})(?P<q>[\"'])(?s:.*?)(?:(?P=esc)(?P=q)|\Z))"
)
_LINE = re.compile(r"[^\r\n]*")
_QUERY = re.compile(r"[^\s&#]*")
_QUERY_LINE = re.compile(r"[^&\r\n]*")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SEGMENT = re.compile(r"[.\[\]/]+|%5[BbDd]")
_UNFOLDED = re.compile(r"[\W_]+")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")

#: Signs that a text may hold a credential; without one of them no pattern is tried.
_SIGNS = re.compile(r"[=@:\"'%]|//|eyJ|-----BEGIN|[rR][eE][rR][\s+]|[sS][iI][cC][\s+]")
_SECRET_ENDINGS = (
    "password",
    "passwd",
    "passphrase",
    "secret",
    "secretkey",
    "accesskey",
    "privatekey",
    "apikey",
    "token",
    "credentials",
)
#: Names whose values have spaces in them.
_SPACED = frozenset({"authorization", "proxyauthorization", "cookie", "setcookie", "cookies"})


class Redactor:
    """Knows the sensitive names of one configuration.

    Args:
        names: header or field names; `X-Api-Key`, `x_api_key`, `HTTP_X_API_KEY`, `xApiKey` and
            `user[x-api-key]` are the same name.
        max_text_bytes: UTF-8 bytes kept of one text; the rest gives way to a marker.
    """

    def __init__(self, names: Iterable[str], max_text_bytes: int) -> None:
        self._names = frozenset(_fold(name) for name in (*names, *ALWAYS_SENSITIVE))
        self.max_text_bytes = max_text_bytes
        #: No text this short (in characters) can be too long (in bytes).
        self.short = max_text_bytes // 4
        #: Plain names found not to be sensitive, for asking about many at once.
        self.shown: set[str] = set()
        #: Short texts found to need nothing: methods, countries, rules' names come again and again.
        self._unchanged: set[str] = set()

    def hides(self, name: str) -> bool:
        """Tell whether values under this name are secret."""
        if name in self.shown:
            return False
        if self._is_sensitive(name[:256]):
            return True
        if _PLAIN_NAME.fullmatch(name):
            _remember(name, self.shown)
        return False

    def _is_sensitive(self, name: str) -> bool:
        folded = {_fold(part) for part in (name, *_SEGMENT.split(name))} - {""}
        folded |= {one[4:] for one in folded if one.startswith("http")}  # WSGI's HTTP_COOKIE
        # DB_PASSWORD, aws_secret_access_key, user_token
        return not folded.isdisjoint(self._names) or any(map(_ends_in_secret, folded))

    def key(self, name: str) -> str:
        """Make a mapping's key fit to be sent: as it is, or masked and cut like any text."""
        return name if _PLAIN_NAME.fullmatch(name) else self.text(name[:256])

    def text(self, text: str, depth: int = 0) -> str:
        """Mask credentials in a text, cut it to the bound and make it valid Unicode."""
        if text in self._unchanged:
            return text
        whole = len(text)
        cut = whole > self.max_text_bytes + _MARGIN
        if text[:1] in '{["' or text[:1].isspace():
            masked = self._json(text, depth) if whole <= _JSON_MAX else None
            if masked is not None:
                return self._fit(masked, whole, cut=False)
        if cut:
            text = text[: self.max_text_bytes + _MARGIN]
        if cut or _SIGNS.search(text):
            text = self._credentials(text, cut=cut)
        elif whole <= _SHORT and whole <= self.short and text.isascii():
            _remember(text, self._unchanged)
            return text
        return self._fit(text, whole, cut=cut)

    def tree(self, value: Any, leaf: Callable[[str, Any], Any], depth: int = 0) -> Any:
        """Walk dicts and lists; hide what sensitive names hold, apply `leaf` to the rest.

        A pair in a list whose first is a sensitive name is a header. Keys must be text already;
        depth is bounded by whoever built the tree.
        """
        if type(value) is dict:
            return {
                name: REDACTED if self.hides(name) else self._branch(name, item, leaf, depth)
                for name, item in value.items()
            }
        if len(value) == 2 and self._is_header(value[0]):
            return [self._branch("", value[0], leaf, depth), REDACTED]
        return [self._branch("", item, leaf, depth) for item in value]

    def _is_header(self, name: Any) -> bool:
        if type(name) is bytes:
            name = name[:256].decode("latin-1")
        return type(name) is str and self.hides(name)

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
            document = self.tree(with_keys(document, self.key), leaf, depth + 1)
        elif type(document) is str:
            document = self.text(document, depth + 1)
        else:
            return None  # a number hides nothing, and stays as it was written
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"))

    def _credentials(self, text: str, *, cut: bool) -> str:
        text = _SCHEME.sub(_mask_scheme, text)
        text = _JWT.sub(REDACTED, text)
        text = _PRIVATE_KEY.sub(REDACTED, text)
        text = _USERINFO.sub(f"//{REDACTED}@", text)
        if cut:
            text = _USERINFO_CUT.sub(f"//{REDACTED}", text)
        text = self._assignments(text)
        if "%" in text:
            # An address within an address, such as `?next=https%3A%2F%2F...`: what is hidden in it
            # comes to light when it is decoded, and is then sent decoded.
            decoded = unquote(text)
            masked = self._assignments(_USERINFO.sub(f"//{REDACTED}@", decoded))
            text = text if masked == decoded else masked
        return text

    def _assignments(self, text: str) -> str:
        """Mask `name=value`, `name: value`, `"name": "value"` and the like for sensitive names."""
        kept: list[str] = []
        end = 0
        for match in _ASSIGNED.finditer(text):
            if match.start() < end or not self.hides(match[1]):
                continue
            kept += text[end : match.end()], REDACTED
            end = _value_end(text, match)
        return "".join(kept) + text[end:] if kept else text

    def _fit(self, text: str, whole: int, *, cut: bool) -> str:
        if not text.isascii():
            text = _SURROGATE.sub("\ufffd", text)
        if len(text) <= self.short and not cut:
            return text
        marker = f"...[truncated, {whole} characters]"
        limit = self.max_text_bytes
        data = text[: limit + 1].encode()
        if len(data) <= limit and len(text) <= limit:
            return text + marker if cut else text
        # Cutting bytes may split the last character; "ignore" drops just that one.
        return data[:limit].decode("utf-8", "ignore") + marker


def _value_end(text: str, match: re.Match[str]) -> int:
    """Return where the value of a matched name ends; too late rather than too early."""
    start = match.end()
    quoted = _QUOTED.match(text, start)
    if quoted is not None:
        return quoted.end()
    if text[start : start + 1] in ("[", "{"):
        return len(text)
    if "=" in match[2] or "%" in match[2]:
        spaced = _fold(match[1]).removeprefix("http") in _SPACED
        return (_QUERY_LINE if spaced else _QUERY).match(text, start).end()  # type: ignore[union-attr]
    return _LINE.match(text, start).end()  # type: ignore[union-attr]


def _remember(text: str, kept: set[str]) -> None:
    if len(kept) >= _NAMES_KEPT:
        kept.clear()  # they may come from an attacker: remember few
    kept.add(text)


def _mask_scheme(match: re.Match[str]) -> str:
    scheme, token = match[1], match[2]
    if scheme.lower() == "basic" and not (len(token) >= 4 and _BASE64_SIGN.search(token)):
        return match[0]  # "basic authentication" is no credential
    return f"{scheme} {REDACTED}"


def with_keys(value: Any, key_text: Callable[[Any], str], depth: int = 0) -> Any:
    """Give every mapping of a tree text keys, without losing an item to a clash.

    What lies so deep that `Redactor.tree` hides it is left as it is.
    """
    if depth > _JSON_DEPTH:
        return value
    if type(value) is list:
        return [with_keys(item, key_text, depth + 1) for item in value]
    if type(value) is not dict:
        return value
    named: dict[str, Any] = {}
    clashes = 0
    for key, item in value.items():
        name = key_text(key)
        while name in named:  # numbers only go up, so this ends at once
            clashes += 1
            name = f"{name} ({clashes})"
        named[name] = with_keys(item, key_text, depth + 1)
    return named


def _ends_in_secret(folded: str) -> bool:
    return folded.endswith(_SECRET_ENDINGS)


def _fold(name: str) -> str:
    return _UNFOLDED.sub("", name.lower())
