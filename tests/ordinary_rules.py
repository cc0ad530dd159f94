"""Expressions as rule sets against attacks on the web are really made of, some three hundred."""

from __future__ import annotations

import re

__all__ = ["ORDINARY"]


def _words(text: str) -> list[str]:
    return re.findall(r"\S+", text)


_SQL_FUNCTIONS = _words(r"""
ascii benchmark bin cast char char_length coalesce concat concat_ws convert count current_user
database dbms_pipe elt encode exec execute extractvalue floor group_concat hex ifnull instr lcase
left length load_file lower lpad ltrim md5 mid nchar now nullif ord pg_sleep position rand
regexp_replace repeat replace right round row_count rpad sha1 sign sleep space strcmp substr
substring sys_eval system_user to_char to_number trim ucase unhex updatexml user utl_http
utl_inaddr uuid version waitfor xmltype
""")
_STATEMENTS = _words(r"""
(?:union|intersect|except)\s+(?:all\s+)?select
insert\s+into
delete\s+from
drop\s+table
alter\s+(?:table|database)
create\s+(?:table|view)
truncate\s+table
update\s+\w+\s+set
into\s+(?:out|dump)file
order\s+by\s+\d+
group\s+by\s+\w+\s+having
select\s+@@\w+
having\s+\d+\s*=\s*\d+
information_schema\.(?:tables|columns)
exec\s+(?:xp|sp)_\w+
declare\s+@\w+
shutdown\s+with\s+nowait
procedure\s+analyse\s*\(
pg_catalog\.\w+
""")
_EVENTS = _words(r"""
abort beforeprint blur change click contextmenu copy cut dblclick drag drop error focus hashchange
input invalid keydown keypress keyup load message mousedown mousemove mouseout mouseover mouseup
offline online pageshow paste pointerdown popstate reset resize scroll search select storage submit
toggle touchstart transitionend unload wheel
""")
_TAGS = _words(r"""
applet audio base body embed form frame frameset html iframe img input isindex layer link marquee
math meta object script style svg video xml
""")
_COMMANDS = _words(r"""
bash cat chmod chown cmd curl echo env find ftp id ifconfig kill ls nc net netstat nslookup perl
ping powershell ps python rm ruby sh sleep tar telnet touch uname wget whoami xterm
""")
_FILES = _words(r"""
etc/(?:passwd|shadow|group|hosts)
proc/self/(?:environ|cmdline|maps)
\.(?:git|svn|hg)/(?:config|entries|index)
\.(?:env|htaccess|htpasswd|bash_history|npmrc|pgpass)(?:$|[?/])
wp-(?:admin|content|includes)/[^?]{0,80}\.php
wp-config\.(?:php|bak|old|txt)
(?:boot|win|system)\.ini
web\.config|application\.(?:yml|properties)
\.(?:bak|old|orig|swp|sav|save)(?:$|\?)
(?:phpmyadmin|adminer|pma)/index\.php
(?:id_rsa|id_dsa|authorized_keys)\b
\.aws/(?:credentials|config)
actuator/(?:env|heapdump|jolokia)
(?:cgi-bin|scripts)/[^?]{0,40}\.(?:sh|pl|cgi|exe)
""")
_LONE = [
    r"(?:\.\.[/\\]){2,}",
    r"(?:%2e%2e[/\\]|\.\.%2f|\.\.%5c)",
    r"%00|\x00",
    r"[\r\n] *(?:set-cookie|location|content-type)\s*:",
    r"\$\{(?:jndi|env|sys|lower|upper):[^}]*\}",
    r"\$\{\$\{[^}]{0,80}\}",
    r"\{\{[^}]{0,200}\}\}",
    r"<%=?[^%]{0,200}%>",
    r"#\{[^}]{0,200}\}",
    r"<!(?:doctype|entity)\s+[^>]*system",
    r"<\?(?:php|xml)?",
    r"(?:java|vb|live)script\s*:",
    r"data:text/(?:html|javascript)[;,]",
    r"expression\s*\([^)]*\)",
    r"document\s*\.\s*(?:cookie|domain|write|location)",
    r"window\s*\.\s*(?:location|name|open)",
    r"(?:alert|confirm|prompt|eval)\s*[(`]",
    r"string\s*\.\s*fromcharcode",
    r"@import\s+[\"']?[^\"']{0,100}",
    r"\bsrc\s*=\s*[\"']?(?:https?:)?//",
    r"style\s*=\s*[\"'][^\"']*(?:expression|url)\s*\(",
    r"['\"]\s*(?:or|and|xor)\s+['\"]?\w+['\"]?\s*(?:=|<|>|like)",
    r"\b(?:or|and)\b\s+\d+\s*=\s*\d+",
    r"['\"]\s*;\s*(?:drop|insert|update|delete|shutdown)\b",
    r"/\*!?\d*.{0,100}\*/",
    r"(?:--|#)\s*$",
    r"0x[0-9a-f]{8,}",
    r"\bwaitfor\s+delay\s+['\"]",
    r"union.{0,40}select.{0,200}from",
    r"select.+from",
    r"<script[^>]*>[^<]*</script",
    r"eval\s*\(.*base64_decode",
    r"\(\s*\)\s*\{\s*:?;?\s*\}\s*;",
    r"[;|`]\s*(?:cat|ls|id|wget|curl)\b",
    r"\$\(\s*\w+|`[^`]{1,100}`",
    r"(?:php|phar|zip|expect|glob|data|file|gopher|dict)://",
    r"(?:https?|ftp)://(?:127\.|10\.|169\.254\.|192\.168\.|localhost)",
    r"o:\d+:\"[^\"]{1,100}\":\d+:\{",
    r"rO0AB[\w+/=]{8,}",
    r"(?:__proto__|constructor)\s*[\[.]\s*['\"]?prototype",
    r"\[\s*\$(?:ne|gt|lt|regex|where|exists)\s*\]",
    r"\(\|?\(?(?:uid|cn|sn|objectclass)=\*",
    r"[^\x20-\x7e\u0080-\uffff]",
    r"[\ud800-\udfff]",
    r"(?:[^\w\s][\w\s]?){12}",
    r"/(?:\.|%2e){1,2}/",
    r"^[^?\n]*\.(?:asp|aspx|jsp|jspx|cfm|do|action)(?:\?|$)",
    r"\bclass\.module\.classloader\b",
    r"@java\.lang\.(?:runtime|processbuilder)",
    r"(?:sqlmap|nikto|nessus|acunetix|dirbuster|masscan|wpscan|nuclei|gobuster|havij)",
]

#: About three hundred; few of them backtrack, and most begin with a word.
ORDINARY = [
    *(rf"\b{name}\s*\(" for name in _SQL_FUNCTIONS),
    *_STATEMENTS,
    *(rf"\bon{name}\s*=" for name in _EVENTS),
    *(rf"<\s*{name}\b[^>]*>?" for name in _TAGS),
    *(rf"[;|&`]\s*{name}\b" for name in _COMMANDS),
    rf"[;|&`]\s*(?:/(?:usr/)?bin/)?(?:{'|'.join(_COMMANDS)})\b",
    *(f"/{name}" for name in _FILES),
    *_LONE,
]
