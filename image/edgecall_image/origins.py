"""Where bundles may come from: ``[update]`` of the operator's settings, read by root itself.

The signature is what makes a bundle ours; this keeps a daemon that was taken over from having it fetched from anywhere.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from edgecall_image.layout import SETTINGS

__all__ = ["Origins", "OriginsError"]

URL_LIMIT: Final = 2048
MAX_SETTINGS: Final = 1 << 20
_PORTS: Final = {"https": 443, "http": 80}
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1"})


class OriginsError(Exception):
    """The settings cannot be read, or the address is none that is allowed; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Origins:
    """``below``: addresses that end with ``/``; what is fetched lies below one. ``ca_file``: PEM of who signs these
    servers' certificates; empty: the system's."""

    below: tuple[str, ...] = ()
    ca_file: str = ""

    @classmethod
    def read(cls, path: Path = SETTINGS) -> Origins:
        """Raises OriginsError. Without the file, or the section, nothing is allowed."""
        try:
            with path.open("rb") as file:
                content = file.read(MAX_SETTINGS + 1)
            document = tomllib.loads(content.decode()) if len(content) <= MAX_SETTINGS else None
        except FileNotFoundError:
            return cls()
        except OSError as error:
            raise OriginsError(f"the settings {path} cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:  # TOML or UTF-8; the daemon runs on its last good copy meanwhile
            raise OriginsError(f"the settings {path} have a fault, correct them first: {error}") from None
        if document is None:
            raise OriginsError(f"the settings {path} are larger than 1 MiB")
        section = document.get("update", {})
        below = section.get("origins", []) if isinstance(section, dict) else None
        ca_file = section.get("ca_file", "") if isinstance(section, dict) else None
        texts = isinstance(below, list) and all(isinstance(one, str) for one in below)
        if not isinstance(below, list) or not texts or not isinstance(ca_file, str):
            raise OriginsError(f"the settings {path} have a fault: update.origins is a list of texts, ca_file a text")
        return cls(tuple(below), ca_file)

    def check(self, url: str) -> None:
        """Raises OriginsError unless ``url`` lies below one of them."""
        split = _split(url)
        for one in self.below:
            try:
                origin = _split(one)
            except OriginsError:
                continue  # the daemon names it, with all other faults of the settings
            if _server(split) == _server(origin) and origin.path.endswith("/") and split.path.startswith(origin.path):
                return
        raise OriginsError("updates may come from " + (" and ".join(self.below) or "nowhere")
                           + f", not from {split.scheme}://{split.netloc}: see update.origins of the settings")


def _split(url: str) -> SplitResult:
    if len(url) > URL_LIMIT or re.fullmatch(r"[!-~]+", url) is None:
        raise OriginsError(f"an address has at most {URL_LIMIT} characters of ASCII, without blanks")
    try:
        split = urlsplit(url)
        port_is_sane = split.port is None or split.port > 0
    except ValueError as error:
        raise OriginsError(f"this is no address: {error}") from None
    if split.scheme not in _PORTS or not split.hostname or not port_is_sane:
        raise OriginsError("an address begins with https://HOST")
    if split.scheme == "http" and split.hostname not in _LOOPBACK:
        raise OriginsError("it would cross the network unencrypted: use https://")
    if split.username is not None or split.password is not None or split.fragment or "\\" in unquote(split.path):
        raise OriginsError("an address of a bundle has neither a login nor a fragment nor '\\'")
    if any(segment in {".", ".."} for segment in unquote(split.path).split("/")):
        raise OriginsError("an address of a bundle has no '.' or '..' in its path")
    return split


def _server(split: SplitResult) -> tuple[str, str, int]:
    return split.scheme, split.hostname or "", split.port or _PORTS[split.scheme]
