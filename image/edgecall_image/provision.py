"""The first boot file: taken over whole or not at all, told of in ``edgecall-result.txt`` beside it, emptied, and from
then on read for the network alone.

Whatever moment the power goes: as long as PROVISIONED does not stand on data everything is done again from the file on
the card, which nobody has touched; once it stands, what is left to be emptied is known from the copies beside it.
"""

from __future__ import annotations

import grp
import json
import logging
import os
import ssl
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from edgecall_image.card import Card
from edgecall_image.durable import remove_file, replace_file
from edgecall_image.errors import ImageError
from edgecall_image.facts import AUTHORITIES, FACTS, Facts, Ground, apply, load, save
from edgecall_image.firstfile import MAX_BYTES, NAME, RESULT, FirstFile, move_files, parsed
from edgecall_image.identity import certificate_request, device_key
from edgecall_image.layout import PROVISIONED, SELECTOR_PARTITION, SETTINGS, VERSION_FILE, partition
from edgecall_image.reset import MODEL
from edgecall_image.toml_text import toml_text

__all__ = ["RESULT_SIZE", "Provisioning", "Report", "daemon_faults", "main"]

log = logging.getLogger(__name__)

RESULT_SIZE: Final = 4096
"""Bytes that an image has it with; a write stays within."""
NOTICES: Final = "edgecall-image/notices.json"
NO_DATA: Final = "edgecall-image/no-data"
"""Left by the first process where /data is only memory."""
FILES: Final = "config/files"
TO_EMPTY: Final = "config/to-empty"
GROUP: Final = "edgecall"
CHECK_S: Final = 120.0
FAULTS, FAULT = 16, 160
"""So many, of so many characters, are told on the card: the rest of RESULT_SIZE is for what else stands there."""
HEADING: Final = "# Written at first boot; a device that is set up keeps it until a factory reset."
EMPTIED: Final = (b"# Taken over and emptied. Of a new text here [network] alone is read, until a factory reset.\n"
                  b"# edgecall-result.txt says how it went.\n")

Check = Callable[[Path], Sequence[str]]
"""The faults that the daemon finds in a file of settings, without its path."""


class Report(NamedTuple):
    """``refused``: sections that are read at first boot alone, and stand there again."""

    words: str
    faults: Sequence[str] = ()
    refused: Sequence[str] = ()


class Provisioning:
    """One boot's look at the card. ``check``: see ``Check``; ``group``: who reads what is secret, beside root."""

    def __init__(self, card: Card, ground: Ground, check: Check, group: int, *, is_board: bool) -> None:
        self._card, self._ground, self._check, self._group, self._is_board = card, ground, check, group, is_board
        self._provisioned = self._place(PROVISIONED)
        self._settings = self._place(SETTINGS)

    def run(self) -> Report:
        """Raises ImageError where the card cannot be read or written, OSError where data cannot be written."""
        self._make_folders()
        try:
            self._finish_emptying()
            return self._look()
        finally:
            if not self._settings.exists():
                self._keep_settings(self._default())

    def run_without_data(self) -> Report:
        """Where nothing lasts: what the card holds would be lost, so it is not read. Raises OSError."""
        self._make_folders()
        self._keep_settings(self._default())
        return Report("The data partition cannot be used, so nothing is kept and no file is read. A factory reset by "
                      "the button makes it anew; if that does not help, the card is at its end.")

    def _look(self) -> Report:
        content = self._card.read(NAME, MAX_BYTES)
        file = parsed(content or b"")
        if self._provisioned.exists():
            blank = Report("This device is set up.")
            take = self._take_network
        else:
            self._forget_attempt()
            blank = Report(f"This device is not set up. Write {NAME} on this partition, and start it again.")
            take = self._take_all
        return blank if content is None or file.is_blank else take(file, content)

    # -- first boot ---------------------------------------------------------------------------------------------------

    def _forget_attempt(self) -> None:
        """What a power cut left of taking over a file: somebody may have changed it since."""
        copies = self._ground.data / TO_EMPTY
        if any(copies.iterdir()):
            remove_file(self._ground.data / FACTS)
            self._keep_settings(self._default())
        for folder in (self._ground.data / FILES, self._ground.data / AUTHORITIES, copies):
            for path in folder.iterdir():
                remove_file(path)

    def _take_all(self, file: FirstFile, content: bytes) -> Report:
        moved = move_files(file.settings, self._fetch, self._ground.data / FILES)
        faults = [*file.faults, *moved.faults]
        authorities = self._authorities(file, faults)
        for name, text in moved.files.items():
            self._keep_secret(self._ground.data / FILES / name, text)
        settings = moved.settings
        for section, values in self._default("" if file.faults else file.system.get("hostname", "")).items():
            if isinstance(given := settings.get(section, {}), dict):
                settings[section] = {**values, **given}
        if not moved.faults:  # else they would be found a second time, in other words
            faults += self._daemon_faults(settings)
        if faults:
            return Report("Nothing of it was taken over, because it has faults. Mend them, and start the device again.",
                          faults)
        for name, text in authorities.items():
            replace_file(self._ground.data / AUTHORITIES / name, text, 0o644)
        for name in moved.from_card:
            self._remember(name, moved.files[name])
        for name, text in (authorities | {NAME: content}).items():
            self._remember(name, text)
        save(self._ground.data, Facts(file.system, file.network))
        self._keep_settings(settings)
        replace_file(self._provisioned, b"")
        self._finish_emptying()
        return Report("Everything was taken over. This device is set up.")

    def _authorities(self, file: FirstFile, faults: list[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for name in () if file.faults else file.system.get("ca_files", ()):
            content = self._fetch(name)
            if content is None:
                faults.append(f"system.ca_files: there is no file {name} beside {NAME}")
            elif not _is_certificate(content):
                faults.append(f"system.ca_files: {name} is no certificate in PEM")
            else:
                found[name] = content
        return found

    def _daemon_faults(self, settings: dict[str, Any]) -> Sequence[str]:
        candidate = self._settings.with_name("candidate.toml")
        try:
            text = toml_text(settings)
        except TypeError as error:
            return [str(error)]
        replace_file(candidate, text.encode(), 0o644)
        faults = self._check(candidate)
        remove_file(candidate)
        return faults

    def _default(self, host: str = "") -> dict[str, dict[str, Any]]:
        """What the daemon runs with as long as nobody says anything else."""
        host = host or self._host_name()
        return {"device": {"id": host} if len(host) in range(3, 41) else {},
                "board": {"name": "pi" if self._is_board else "sim"}}

    # -- later boots --------------------------------------------------------------------------------------------------

    def _take_network(self, file: FirstFile, content: bytes) -> Report:
        """The facts first: a power cut before the file is emptied takes the same over again."""
        refused = file.others_than_network
        if file.faults or not file.network:
            why = ", because it has faults" if file.faults else ""
            return Report(f"Nothing of it was taken over{why}. This device is set up, and stays as it was.",
                          file.faults, refused)
        save(self._ground.data, Facts(load(self._ground.data).system, file.network))
        self._remember(NAME, content)
        self._finish_emptying()
        return Report("The network was taken over. This device is set up.", (), refused)

    # -- the card -----------------------------------------------------------------------------------------------------

    def _fetch(self, name: str) -> bytes | None:
        return self._card.read(name, MAX_BYTES)

    def _remember(self, name: str, content: bytes) -> None:
        replace_file(self._ground.data / TO_EMPTY / name, content)

    def _finish_emptying(self) -> None:
        """What was taken over is overwritten on the card: the copies say what it was, whatever was done of it."""
        if not self._provisioned.exists():
            return
        for copy in sorted((self._ground.data / TO_EMPTY).iterdir()):
            self._card.empty(copy.name, copy.read_bytes(), EMPTIED if copy.name == NAME else b"")
            remove_file(copy)

    def tell(self, report: Report) -> None:
        """On the card, in the journal, and to the daemon. Raises as ``run`` does."""
        path = self._ground.run / NOTICES
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.write_text(json.dumps({"faults": list(report.faults), "refused": list(report.refused)}))
        path.chmod(0o644)
        for fault in report.faults:
            log.error("%s: %s", NAME, fault)
        if report.refused:
            log.error("%s: refused on a device that is set up: %s", NAME, ", ".join(report.refused))
        if not self._card.write(RESULT, self._result(report).encode()):
            log.error("there is no %s on the card: nobody reads there how it went", RESULT)

    def _result(self, report: Report) -> str:
        name = self._host_name()
        lines = [f"Edgecall {_version()}, {name}", "", report.words]
        if report.faults:
            lines += ["", *(f"  {fault:.{FAULT}}" for fault in report.faults[:FAULTS])]
            if len(report.faults) > FAULTS:
                lines.append(f"  and {len(report.faults) - FAULTS} more")
        if report.refused:
            lines += ["", f"Refused, since a device that is set up reads [network] alone: {', '.join(report.refused)}.",
                      "A factory reset makes it read everything again."]
        if not (self._ground.run / NO_DATA).exists():
            lines += self._request(name)
        return "\n".join(lines) + "\n"

    def _request(self, name: str) -> Sequence[str]:
        key = self._ground.data / "config" / "device.key"
        try:
            device_key(key, self._group)
            request = certificate_request(key.with_suffix(".csr"), key, self._device_id() or name)
        except ImageError as error:
            log.warning("the device has no key of its own: %s", error)
            return ()
        return "", "Request for a certificate of this device's own key, /data/config/device.key:", request

    def _device_id(self) -> str:
        try:
            return str(tomllib.loads(self._settings.read_text())["device"]["id"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    # -- data ---------------------------------------------------------------------------------------------------------

    def _host_name(self) -> str:
        return (self._ground.data / "system" / "hostname").read_text().strip()

    def _place(self, path: Path) -> Path:
        return self._ground.data / path.relative_to(Ground().data)

    def _make_folders(self) -> None:
        for name, mode in (("config", 0o755), (FILES, 0o750), (AUTHORITIES, 0o755), (TO_EMPTY, 0o700)):
            folder = self._ground.data / name
            folder.mkdir(exist_ok=True)
            folder.chmod(mode)
        os.chown(self._ground.data / FILES, -1, self._group)

    def _keep_secret(self, path: Path, content: bytes) -> None:
        replace_file(path, content)
        os.chown(path, -1, self._group)
        path.chmod(0o440)

    def _keep_settings(self, settings: dict[str, Any]) -> None:
        content = f"{HEADING}\n{toml_text(settings)}".encode()
        if not self._settings.exists() or self._settings.read_bytes() != content:
            replace_file(self._settings, content, 0o644)


def _is_certificate(content: bytes) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=content.decode("ascii"))
    except (ssl.SSLError, ValueError):
        return False
    return True


def _version() -> str:
    try:
        return VERSION_FILE.read_text().strip()
    except OSError:
        return ""


def daemon_faults(path: Path) -> Sequence[str]:
    """As the daemon finds them, as the user that it runs as: what that user may not read is a fault as well."""
    command = ["/usr/bin/edgecall", "check", str(path)]
    try:
        result = subprocess.run(command, user=GROUP, group=GROUP, extra_groups=[], capture_output=True, text=True,
                                cwd="/", env={"PATH": "/usr/bin:/bin", "HOME": "/", "LC_ALL": "C.UTF-8"},
                                timeout=CHECK_S, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return [f"it could not be checked: {error}"]
    if result.returncode == 0:
        return ()
    lines = [line.removeprefix(f"{path}: ") for line in result.stderr.splitlines() if line.strip()]
    return lines or [f"it could not be checked: edgecall ended with status {result.returncode}"]


def main(argv: Sequence[str]) -> int:
    """``provision``: exit status 1 where the card or data fail; what is known from before is applied all the same."""
    logging.basicConfig(format="edgecall: %(message)s", level=logging.INFO, stream=sys.stdout)
    ground = Ground()
    provisioning = Provisioning(Card(partition(SELECTOR_PARTITION)), ground, daemon_faults,
                                grp.getgrnam(GROUP).gr_gid, is_board=MODEL.exists())
    report = None
    try:
        lasts = not (ground.run / NO_DATA).exists()
        report = provisioning.run() if lasts else provisioning.run_without_data()
    except (ImageError, OSError) as error:
        log.warning("the first boot file is not looked at: %s", error)
    apply(load(ground.data), ground)
    if report is None:
        return 1
    try:
        provisioning.tell(report)
    except (ImageError, OSError) as error:
        log.warning("how it went is not told on the card: %s", error)
        return 1
    return 0
