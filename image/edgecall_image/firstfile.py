"""``edgecall.toml`` of the first partition: which of it is the image's, which the daemon's, and what stands in files
beside it. Pure but for the time zones it looks for.

It is a settings file of the daemon (docs/configuration.md) with two liberties, so that one text file is enough: a
secret may stand in it (``password = "…"`` for ``password_file``), and a file may be named that lies beside it on the
card (``ca_file = "ca.crt"``). Both are moved to /data, and the settings name them there. ``[system]`` and the keys
NETWORK of ``[network]`` are the image's own.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edgecall_image.network import NETWORK
from edgecall_image.reset import BUTTONS
from edgecall_image.shapes import Shape, Table, a_list, a_text, checked

__all__ = ["MAX_BYTES", "NAME", "RESULT", "SECRETS", "SYSTEM", "ZONES", "FirstFile", "Moved", "move_files", "parsed"]

NAME: Final = "edgecall.toml"
MAX_BYTES: Final = 65_536
"""Of the file, and of each beside it."""
DEEPEST: Final = 8
RESULT: Final = "edgecall-result.txt"
OWN: Final = frozenset({"autoboot.txt", NAME, f"{NAME}.example", RESULT})
"""Files of the selector partition that are not the operator's, beside the firmware's ``*.bin``."""

SECRETS: Final = frozenset({
    "api_secret", "mqtt_password", "passcode", "password", "pin", "play_token", "secret", "token", "token_key",
    "turn_password", "turn_secret",
})
"""The daemon's secrets, each of which its settings take from a file (``password_file``)."""

ZONES: Final = Path("/usr/share/zoneinfo")
_HOST_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_ZONE: Final = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}")


def _host_name(value: str) -> str:
    return "" if _HOST_NAME.fullmatch(value) else "must be of a-z, 0-9 and, but at its ends, '-'; 63 at most"


def _zone(value: str) -> str:
    return "" if _ZONE.fullmatch(value) and (ZONES / value).is_file() else (
        "must be a time zone, such as 'Europe/Berlin'")


def _file_name(value: str) -> str:
    if not _FILE_NAME.fullmatch(value):
        return "must be the name of a file beside this one: letters, digits, '.', '_' and '-'"
    # what is taken over is emptied: without its own files a board would not start again
    return f"{value} is the image's own" if value.casefold() in OWN or value.casefold().endswith(".bin") else ""


def _button(value: str) -> str:
    return "" if value in BUTTONS else f"must be one of {', '.join(BUTTONS)}"


SYSTEM: Final[Mapping[str, Shape]] = {
    "hostname": a_text(_host_name), "time_zone": a_text(_zone), "ca_files": a_list(_file_name),
    "reset_button": a_text(_button),
}


@dataclass(frozen=True, slots=True)
class FirstFile:
    """``settings``: the daemon's part, as it stands. ``faults``: of the image's part, and of the file as a whole."""

    system: Table = field(default_factory=dict)
    network: Table = field(default_factory=dict)
    settings: Table = field(default_factory=dict)
    faults: tuple[str, ...] = ()

    @property
    def is_blank(self) -> bool:
        """Nothing is asked for: an emptied file, or one of comments."""
        return not (self.system or self.network or self.settings or self.faults)

    @property
    def others_than_network(self) -> tuple[str, ...]:
        """What is read at first boot alone: sections, and the daemon's keys of the network."""
        sections = [*(["system"] if self.system else []), *self.settings]
        ours = [f"network.{key}" for key in self.settings.get("network", ())]
        return tuple(part for name in sections for part in (ours if name == "network" else [name]))


def parsed(content: bytes) -> FirstFile:
    """Every fault at once; a file that is no TOML has that one."""
    if len(content) > MAX_BYTES:
        return FirstFile(faults=(f"is larger than {MAX_BYTES // 1024} KiB: this is no settings file",))
    try:
        # some editors put a mark of byte order in front
        tables = tomllib.loads(content.decode("utf-8-sig").rstrip("\0").replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return FirstFile(faults=(f"is not UTF-8 text (line {line}): save it as UTF-8",))
    except RecursionError:
        return FirstFile(faults=("is nested too deeply",))
    except ValueError as error:  # also an impossible date, and a number of thousands of digits
        return FirstFile(faults=(f"is not TOML: {error}",))
    faults = [f"{name}: must be a table, begun by [{name}]" for name in ("system", "network")
              if not isinstance(tables.get(name, {}), dict)]
    if faults:
        return FirstFile(faults=tuple(faults))
    system, both = tables.pop("system", {}), tables.pop("network", {})
    network = {key: value for key, value in both.items() if key in NETWORK}
    if rest := {key: value for key, value in both.items() if key not in NETWORK}:
        tables["network"] = rest
    faults = [*checked(system, SYSTEM, "system"), *checked(network, NETWORK, "network")]
    return FirstFile(system, network, tables, tuple(faults))


@dataclass(slots=True)
class Moved:
    """Settings whose secrets and files lie in a folder on data. ``from_card``: the files that came from the card."""

    settings: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    from_card: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def move_files(settings: Table, fetch: Callable[[str], bytes | None], folder: Path) -> Moved:
    """``fetch`` gives a file of the card by its name, and None where there is none."""
    moved = Moved()
    moved.settings = _moved(settings, (), fetch, folder, moved)
    return moved


def _moved(
    table: Table, path: tuple[str, ...], fetch: Callable[[str], bytes | None], folder: Path, moved: Moved,
) -> dict[str, Any]:
    if len(path) > DEEPEST:
        moved.faults.append(f"{'.'.join(path)}: is nested too deeply")
        return {}
    here: dict[str, Any] = {}
    for key, value in table.items():
        at = (*path, key)
        if isinstance(value, dict):
            here[key] = _moved(value, at, fetch, folder, moved)
        elif isinstance(value, list):
            here[key] = [_moved(one, (*at, str(number)), fetch, folder, moved) if isinstance(one, dict) else one
                         for number, one in enumerate(value, 1)]
        elif key in SECRETS and isinstance(value, str):
            here[f"{key}_file"] = str(folder / _secret(table, at, value, moved))
        elif _names_file(path, key, value):
            here[key] = str(folder / _from_card(at, value.removeprefix("./"), fetch, moved))
        else:
            here[key] = value
    return here


def _secret(table: Table, at: tuple[str, ...], value: str, moved: Moved) -> str:
    key = ".".join(at)
    if f"{at[-1]}_file" in table:
        moved.faults.append(f"{key}: stands beside {at[-1]}_file: give one of the two")
    if not value.strip():
        moved.faults.append(f"{key}: is empty")
    name = re.sub("[^A-Za-z0-9.-]", "_", "-".join(at)) + ".secret"
    moved.files[name] = value.encode()
    return name


def _names_file(path: tuple[str, ...], key: str, value: Any) -> bool:
    if not isinstance(value, str) or not value or value.startswith(("/", "~", "credential:")):
        return False
    return key.endswith("_file") or (path == ("board",) and key == "file" and value.endswith(".toml"))


def _from_card(at: tuple[str, ...], name: str, fetch: Callable[[str], bytes | None], moved: Moved) -> str:
    key = ".".join(at)
    if why := _file_name(name):
        # no word of what stands there: it may be the secret itself
        moved.faults.append(f"{key}: {why}")
        return "missing"
    if name not in moved.files:
        content = fetch(name)
        if content is None:
            moved.faults.append(f"{key}: there is no file {name} beside {NAME}")
            return "missing"
        if len(content) > MAX_BYTES:
            moved.faults.append(f"{key}: {name} is larger than {MAX_BYTES // 1024} KiB")
        moved.files[name] = content
        moved.from_card.append(name)
    return name
