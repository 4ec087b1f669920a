"""A program that speaks as ``rauc`` 1.15 does, word for word where we read them, and works on a card of files.

It streams the bundle by byte ranges as RAUC's own client does, asks the shipped code for everything about slots, and
keeps what a slot holds in the card's folder. What it leaves out: images, signatures and D-Bus. A bundle is that of
``bundle``: the magic number of squashfs, a manifest and filler.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from edgecall_image.errors import ImageError
from edgecall_image.layout import SLOTS, Slot, other
from edgecall_image.slots import Place, Slots
from edgecall_image.versions import Version

__all__ = ["bundle", "install_fake_rauc", "main"]

ROOT = Path(__file__).parents[2]
COMPATIBLE = "edgecall-uml-amd64"
MANIFEST_END = 1024
BLOCK = 16_384


def bundle(version: str, *, compatible: str = COMPATIBLE, signer: str = "ours", filler: int = 200_000) -> bytes:
    manifest = json.dumps({"version": version, "compatible": compatible, "signer": signer}).encode()
    return (b"hsqs" + manifest).ljust(MANIFEST_END) + bytes(range(256)) * (filler // 256)


def install_fake_rauc(folder: Path, place: Place, **scenario: Any) -> Path:
    """Returns the program. ``minimum``: the oldest version it takes. ``full``: the slot has no room. ``busy``: its
    service does something else. ``wait_for``: a file without which it does not go past the signature.
    ``silent``: it hangs there. ``heedless_until``: it has all of the bundle, and goes on when that file is there."""
    program, conf = folder / "rauc", folder / "rauc.json"
    (folder / "slots").mkdir(exist_ok=True)
    _put(conf, json.dumps({"place": [str(path) for path in place], "slots": str(folder / "slots"),
                           "minimum": "1.0.0", **scenario}))
    _put(program, f"#!{sys.executable} -I\nimport sys\nsys.path[:0] = {[str(ROOT), str(ROOT / 'image')]!r}\n"
                  "from tests.support.fake_rauc import main\n"
                  f"sys.exit(main({str(conf)!r}, sys.argv[1:]))\n")
    return program


def _put(path: Path, text: str) -> None:
    """At once: a program of before may be starting just now."""
    made = path.with_name(f".{path.name}")
    made.write_text(text)
    made.chmod(0o755)
    made.replace(path)


class _Trouble(Exception):
    """What RAUC tells as LastError."""


class _Rauc:
    def __init__(self, conf: dict[str, Any]) -> None:
        self._conf = conf
        self._slots = Slots(Place(*map(Path, conf["place"])))
        self._folder = Path(conf["slots"])
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def install(self, url: str) -> None:
        for line in ("installing", "  0% Installing", "  0% Determining slot states",
                     " 10% Determining slot states done.", " 10% Checking bundle"):
            _say(line)
        size = self._configure(url)
        _say(" 10% Verifying signature")
        manifest = json.loads(self._wanted(url, 4, MANIFEST_END - 1))
        self._verify(manifest)
        while self._conf.get("silent"):
            time.sleep(60)
        while "wait_for" in self._conf and not Path(self._conf["wait_for"]).exists():
            time.sleep(0.01)
            self._wanted(url, 0, 3)
        target = other(self._slots.booted())
        self._slots.mark_bad(target)
        self._hold(target, manifest["version"], "pending")
        if "heedless_until" in self._conf:
            _say(f" 95% Copying image to {_name(target)}")
            while not Path(self._conf["heedless_until"]).exists():
                time.sleep(0.01)
        else:
            self._write(url, size, _name(target))
        self._hold(target, manifest["version"], "ok")
        self._slots.make_primary(target)
        _say("100% Updating slots done.")
        _say("100% Installing done.")

    def status(self) -> None:
        rows = []
        for slot in SLOTS:
            path = self._folder / slot
            held = json.loads(path.read_text()) if path.exists() else None
            written: dict[str, Any] = {"bundle": {"compatible": None}}
            if held is not None:
                written = {"bundle": {"compatible": COMPATIBLE, "version": held["version"]}, "status": held["status"]}
            rows.append({_name(slot): {
                "class": "rootfs", "device": f"/dev/disk/by-partuuid/edca1101-0{5 + SLOTS.index(slot)}", "type": "raw",
                "bootname": slot, "state": "booted" if slot == self._slots.booted() else "inactive", "parent": None,
                "mountpoint": None, "boot_status": "bad" if self._slots.is_bad(slot) else "good",
                "slot_status": written}})
            rows.append({f"boot.{SLOTS.index(slot)}": {
                "class": "boot", "type": "vfat", "bootname": None, "parent": _name(slot), "boot_status": None,
                "slot_status": written}})
        _say(json.dumps({"compatible": COMPATIBLE, "variant": "", "booted": self._slots.booted(),
                         "boot_primary": _name(self._slots.primary()), "slots": rows}))

    def mark(self, state: str, which: str) -> None:
        slot = self._slots.booted() if which == "booted" else other(self._slots.booted())
        {"good": self._slots.mark_good, "bad": self._slots.mark_bad, "active": self._slots.make_primary}[state](slot)
        _say(f"rauc status: marked slot(s) {_name(slot)} as {state}")

    def _configure(self, url: str) -> int:
        status, headers, _ = self._read(url, 0, 3)
        if status == 404:
            raise _Trouble(f"Failed to stream bundle {url}: not found: unexpected HTTP response code 404")
        if status == 200:
            raise _Trouble(f"Failed to stream bundle {url}: failed to configure streaming: range requests not "
                           "supported by server")
        if status != 206:
            raise _Trouble(f"Failed to stream bundle {url}: failed to configure streaming: server not responding")
        return int(headers["Content-Range"].partition("/")[2])

    def _verify(self, manifest: dict[str, str]) -> None:
        if manifest["signer"] != "ours":
            _say(" 20% Verifying signature failed.")
            _say(" 20% Checking bundle failed.")
            raise _Trouble("signature verification failed: Verify error: unable to get local issuer certificate")
        _say(" 20% Verifying signature done.")
        if manifest["compatible"] != COMPATIBLE:
            raise _Trouble(f"Compatible mismatch: Expected '{COMPATIBLE}' but bundle manifest has "
                           f"'{manifest['compatible']}'")
        if Version.parse(manifest["version"]) < Version.parse(self._conf["minimum"]):
            raise _Trouble(f"Version mismatch: Expected at least '{self._conf['minimum']}' but bundle manifest has "
                           f"'{manifest['version']}'")

    def _write(self, url: str, size: int, name: str) -> None:
        _say(f" 40% Copying image to {name}")
        for at in range(MANIFEST_END, size, BLOCK):
            self._wanted(url, at, min(at + BLOCK, size) - 1)
            if self._conf.get("full"):
                raise _Trouble(f"Installation error: Failed updating slot {name}: Failed splicing data: Error writing "
                               "to file descriptor: No space left on device")
            _say(f"{40 + 55 * at // size:3}% Copying image to {name}")

    def _hold(self, slot: Slot, version: str, status: str) -> None:
        (self._folder / slot).write_text(json.dumps({"version": version, "status": status}))

    def _wanted(self, url: str, first: int, last: int) -> bytes:
        status, _, content = self._read(url, first, last)
        if status != 206 or len(content) != last - first + 1:
            raise _Trouble("Installation error: Failed updating slot rootfs.1: Failed splicing data: Error reading "
                           "from file descriptor: Input/output error")
        return content

    def _read(self, url: str, first: int, last: int) -> tuple[int, Any, bytes]:
        """With five more tries, as the real one, which sleeps a second before each."""
        request = urllib.request.Request(url, headers={"Range": f"bytes={first}-{last}"})  # noqa: S310 - loopback
        for _ in range(6):
            try:
                with self._opener.open(request, timeout=20) as answer:
                    return answer.status, answer.headers, answer.read()
            except urllib.error.HTTPError as error:
                with error:
                    if error.code == 404:
                        return 404, {}, b""
            except OSError:
                time.sleep(0.02)
        return 0, {}, b""


def _name(slot: Slot) -> str:
    return f"rootfs.{SLOTS.index(slot)}"


def _say(line: str) -> None:
    print(line, flush=True)


def main(conf_path: str, words: list[str]) -> int:
    conf = json.loads(Path(conf_path).read_text())
    rauc = _Rauc(conf)
    if words[0] == "install":
        if conf.get("busy"):
            print("Failed to contact rauc service: Already processing a different method", file=sys.stderr)
            print(f"D-Bus error while installing `{words[1]}`", file=sys.stderr)
            return 2
        try:
            rauc.install(words[1])
        except (_Trouble, ImageError) as trouble:
            _say("100% Installing failed.")
            _say(f"LastError: {trouble}")
            _say("idle")
            print(f"Installing `{words[1]}` failed", file=sys.stderr)
            return 1
        _say(f"Installing `{words[1]}` succeeded")
        return 0
    if words[:2] == ["status", "--detailed"]:
        rauc.status()
        return 0
    try:
        rauc.mark(words[1].removeprefix("mark-"), words[2])
    except ImageError as error:
        print(f"rauc mark: {error}", file=sys.stderr)
        return 1
    return 0
