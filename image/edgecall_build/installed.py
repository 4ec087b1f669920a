"""Proves an installed package from within, by its own interpreter: every import, a GPIO chip, and the daemon itself.

Run by ``image/deb/check`` with ``/usr/lib/edgecall/bin/python -I``, as root in the system that has the package; that is
why this module is a program that imports the standard library alone.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import pkgutil
import platform
import pwd
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

__all__ = ["compiled", "main", "within"]

SITE: Final = Path(sys.prefix) / "lib/python3.13/site-packages"
COMMAND: Final = "/usr/bin/edgecall"
USER: Final = "edgecall"
READY_S: Final = 45.0
"""The unit's TimeoutStartSec."""
STOP_S: Final = 15.0
"""The unit's TimeoutStopSec."""
ANSWER_S: Final = 20.0

OF_SYSTEM: Final = {"evdev", "systemd.daemon", "systemd.journal"}
"""What the package depends on."""
RECOMMENDED: Final = {"libcamera", "picamera2", "sdl2"}
"""What it recommends, or what needs that: sdl2 the library of its name."""


class Wrong(Exception):
    """The package does not do what it has to; the text says what."""


def compiled(site: Path) -> Iterator[str]:
    """The name of every compiled module in a folder of packages."""
    suffix = f".cpython-313-{platform.machine()}-linux-gnu.so"
    for file in sorted(site.rglob("*.so")):
        stem = file.name.removesuffix(suffix).removesuffix(".abi3.so").removesuffix(".so")
        parts = (*file.relative_to(site).parts[:-1], stem)
        if all(part.isidentifier() for part in parts):  # a library that a module brings along is none itself
            yield ".".join(parts)


def modules() -> list[str]:
    """All of the daemon's, every compiled one, every top-level one, and what comes from the system."""
    tops = {module.name for module in pkgutil.iter_modules([str(SITE)])}
    ours = {module.name for top in ("appliance", "hw") for module in pkgutil.walk_packages([str(SITE / top)], f"{top}.")
            if not module.name.endswith("__main__")}
    return sorted(tops | ours | set(compiled(SITE)) | OF_SYSTEM | RECOMMENDED)


def within(trace: TracebackType | None) -> Iterator[str]:
    """The top-level names of the modules that an exception went through."""
    while trace is not None:
        yield str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        trace = trace.tb_next


def imports(without: set[str]) -> None:
    """Imports everything; what fails for want of ``without`` may. Raises Wrong."""
    failed, forgiven = [], 0
    for name in modules():
        try:
            importlib.import_module(name)
        except ImportError as error:
            if {(error.name or "").partition(".")[0], *within(error.__traceback__)} & without:
                forgiven += 1
            else:
                failed.append(f"{name}: {error}")
    if failed:
        raise Wrong("cannot be imported:\n  " + "\n  ".join(failed))
    print(f"imports: {len(modules()) - forgiven} modules; {forgiven} want {', '.join(sorted(without)) or 'nothing'}")


def gpio() -> None:
    """lgpio opens each chip that is there, and says so where there is none; the empty stub of its name does neither."""
    import lgpio

    chips = sorted(int(path.name.removeprefix("gpiochip")) for path in Path("/dev").glob("gpiochip*"))
    for chip in chips:
        try:
            handle = lgpio.gpiochip_open(chip)
        except lgpio.error as error:
            raise Wrong(f"lgpio does not open /dev/gpiochip{chip}: {error}") from error
        status, lines, name, label = lgpio.gpio_get_chip_info(handle)
        lgpio.gpiochip_close(handle)
        if status < 0 or lines < 1:
            raise Wrong(f"lgpio opens /dev/gpiochip{chip} and finds no lines")
        print(f"gpio: opened {name} ({label}), {lines} lines")
    if chips:
        return
    try:
        lgpio.gpiochip_open(0)
    except lgpio.error as error:
        print(f"gpio: there is no chip here, and lgpio says so: {error}")
    else:
        raise Wrong("lgpio has opened a chip that is not there")


def told() -> None:
    """The command line says its version and helps."""
    version = importlib.metadata.version("edgecall")
    for words, expected in ((["--version"], version), (["--help"], "usage: edgecall")):
        result = subprocess.run([COMMAND, *words], capture_output=True, text=True, timeout=ANSWER_S, check=False)
        if result.returncode or expected not in result.stdout:
            raise Wrong(f"edgecall {words[0]} (exit {result.returncode}): {result.stdout}{result.stderr}")


def daemon() -> None:
    """As the unit starts it, with the simulated board: READY, a healthy answer on its socket, and a clean end."""
    user = pwd.getpwnam(USER)
    state, runtime = Path("/var/lib/edgecall"), Path("/run/edgecall")
    for folder, mode in ((state, 0o700), (runtime, 0o750)):  # StateDirectory and RuntimeDirectory
        folder.mkdir(mode=mode, exist_ok=True)
        os.chown(folder, user.pw_uid, user.pw_gid)
    with (tempfile.TemporaryDirectory() as place, tempfile.TemporaryFile() as said,
          socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager):
        Path(place).chmod(0o711)
        notify = Path(place, "notify")
        manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        manager.bind(str(notify))
        notify.chmod(0o666)
        environment = {"PATH": "/usr/bin:/bin", "HOME": user.pw_dir, "STATE_DIRECTORY": str(state), "LANG": "C.UTF-8",
                       "RUNTIME_DIRECTORY": str(runtime), "NOTIFY_SOCKET": str(notify)}
        process = subprocess.Popen([COMMAND, "run"], cwd=state, env=environment, user=user.pw_uid, group=user.pw_gid,
                                   extra_groups=[], umask=0o077, stdout=said, stderr=said)
        try:
            _serves(manager, process)
        except Wrong as wrong:
            _stop(process)
            said.seek(0)
            last = said.read().decode(errors="replace").splitlines()[-12:]
            raise Wrong("\n  ".join([f"{wrong}; the daemon said:", *last])) from None
        if code := _stop(process):
            raise Wrong(f"the daemon, told to stop, ends with exit code {code}")


def _serves(manager: socket.socket, process: subprocess.Popen[bytes]) -> None:
    begun = time.monotonic()
    _until_ready(manager, process, begun + READY_S)
    took = time.monotonic() - begun
    answer = subprocess.run([COMMAND, "health"], capture_output=True, text=True, timeout=ANSWER_S, check=False)
    health = json.loads(answer.stdout or "{}")
    if answer.returncode or health.get("status") not in {"ok", "degraded"}:
        raise Wrong(f"edgecall health (exit {answer.returncode}): {answer.stdout}{answer.stderr}")
    print(f"daemon: ready after {took:.1f} s, {health['status']}")


def _until_ready(manager: socket.socket, process: subprocess.Popen[bytes], deadline: float) -> None:
    pidfd = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(manager, select.POLLIN)
        poll.register(pidfd, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            for number, _ in poll.poll(left * 1000):
                if number == pidfd:
                    raise Wrong(f"it ended before it was ready, exit code {process.wait()}")
                if _told_by(manager) == process.pid:
                    return
        raise Wrong(f"it is not ready after {READY_S:.0f} s")
    finally:
        os.close(pidfd)


def _told_by(manager: socket.socket) -> int:
    """Whose READY=1 waits there; 0 for another word. The broker that the daemon starts says it too."""
    words, credentials, _, _ = manager.recvmsg(4096, socket.CMSG_SPACE(struct.calcsize("3i")))
    pids = [struct.unpack("3i", content)[0] for level, kind, content in credentials
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)]
    return pids[0] if pids and b"READY=1" in words.split(b"\n") else 0


def _stop(process: subprocess.Popen[bytes]) -> int:
    """Its exit code; Wrong where it takes longer than systemd would let it."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise Wrong(f"the daemon does not stop within {STOP_S:.0f} s") from None


def main(words: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, or 1 with the reason on stderr."""
    parser = argparse.ArgumentParser(prog="installed", description=__doc__)
    parser.add_argument("--without", default="", help="recommended modules that may be missing, with commas")
    parser.add_argument("parts", nargs="*", help="what to prove: imports, gpio, told, daemon (default: all)")
    asked = parser.parse_args(words)
    without = set(filter(None, asked.without.split(",")))
    proofs: dict[str, Callable[[], None]] = {
        "imports": lambda: imports(without), "gpio": gpio, "told": told, "daemon": daemon}
    if unknown := set(asked.parts) - proofs.keys():
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # lgpio leaves FIFOs in the working folder
        try:
            for part in asked.parts or proofs:
                proofs[part]()
        except Wrong as wrong:
            print(f"installed: {wrong}", file=sys.stderr)
            return 1
        finally:
            os.chdir("/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
