"""What the header fields of SIP have in common: lists, parameters and quoted strings (RFC 3261 25.1).

Tolerant in what is taken: blanks around separators, parameters given twice, values that should have been quoted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

__all__ = ["HOST", "TOKEN", "Malformed", "params_of", "params_text", "quoted", "split", "unquoted"]

TOKEN: Final = r"[A-Za-z0-9\-.!%*_+`'~]+"  # noqa: S105 - a word of the RFC
HOST: Final = r"\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_][A-Za-z0-9_.\-]{0,253}"
"""IPv6 reference, IPv4 address or name, as it stands in URIs and Via."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9\-.!%*_+`'~\[\]:]+")  # a parameter's value that needs no quotes
_NAME: Final = re.compile(TOKEN)
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f]")


class Malformed(ValueError):
    """What arrived is not SIP or not SDP. The words say what is wrong, and never quote more than a name."""


def split(text: str, separator: str = ",") -> list[str]:
    """The parts of ``text`` between separators that stand neither in quotes nor in ``<>``, without blanks around.
    Raises Malformed where quotes are not closed."""
    if '"' not in text and "<" not in text:
        return [part.strip() for part in text.split(separator)]
    parts, start, at, angle = [], 0, 0, False
    while at < len(text):
        char = text[at]
        if char == '"' and not angle:
            at = _closing_quote(text, at)
        elif char == "<":
            angle = True
        elif char == ">":
            angle = False
        elif char == separator and not angle:
            parts.append(text[start:at].strip())
            start = at + 1
        at += 1
    parts.append(text[start:].strip())
    return parts


def _closing_quote(text: str, opening: int) -> int:
    at = opening + 1
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == '"':
            return at
        at += 1
    raise Malformed("a quoted string is not closed")


def params_of(text: str) -> dict[str, str]:
    """``;a=b;c`` as ``{"a": "b", "c": ""}``: names in lower case, the first of a name counts. Raises Malformed."""
    found: dict[str, str] = {}
    for part in split(text, ";"):
        if not part:
            continue
        name, equals, value = part.partition("=")
        name = name.strip().lower()
        if _NAME.fullmatch(name) is None:
            raise Malformed("a parameter has no proper name")
        found.setdefault(name, unquoted(value.strip()) if equals else "")
    return found


def params_text(params: Mapping[str, str]) -> str:
    """The reverse of ``params_of``; an empty value stands without ``=``."""
    return "".join(
        f";{name}" if not value else f";{name}={value if _PLAIN.fullmatch(value) else quoted(value)}"
        for name, value in params.items())


def quoted(text: str) -> str:
    """As a quoted string; control characters, which would end the header field, are left out."""
    return '"' + _UNSAFE.sub("", text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def unquoted(text: str) -> str:
    """What a quoted string says; anything else as it is."""
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return text
    return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
