"""Run in place of the daemon with the daemon's sandbox: tries what it must and must not be able to do, and writes down
how each went as one JSON object (name -> "ok" or the errno's name; sweeps: what was found). Only the standard library.

What is refused by rule is tried whole: every device node, every writable mount, every family of sockets, every kind of
namespace, and every system call that is named in the file of the first argument.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

NAMESPACES = {"time": 0x80, "mount": 0x20000, "cgroup": 0x2000000, "host name": 0x4000000, "message": 0x8000000,
              "user": 0x10000000, "process": 0x20000000, "network": 0x40000000}  # fmt: skip
STATE = os.environ.get("STATE_DIRECTORY", "/var/lib/edgecall")
RUNTIME = os.environ.get("RUNTIME_DIRECTORY", "/run/edgecall")
SYS_CLONE, SIGCHLD = 56, 17


def outcome(act: Callable[[], object]) -> str:
    try:
        act()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "ok"


def opened(path: str, flags: int = os.O_RDWR) -> Callable[[], None]:
    return lambda: os.close(os.open(path, flags | os.O_NONBLOCK))


def libc(name: str, *arguments: object) -> Callable[[], None]:
    def call() -> None:
        if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) < 0:
            raise OSError(ctypes.get_errno(), name)

    return call


def processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def cloned(flags: int) -> Callable[[], None]:
    def call() -> None:
        child = ctypes.CDLL(None, use_errno=True).syscall(SYS_CLONE, flags | SIGCHLD, 0, 0, 0, 0)
        if child == 0:
            os._exit(0)
        if child < 0:
            raise OSError(ctypes.get_errno(), "clone")
        os.waitpid(child, 0)

    return call


def connected(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(path)


def set_user_id_program() -> None:
    """Whether it makes us somebody else."""
    told = subprocess.run(["/opt/edgecall/set-user-id/id", "-u"], capture_output=True, text=True, check=True).stdout
    if int(told) == os.getuid():
        raise PermissionError(errno.EPERM, "no new privileges")


def nodes() -> dict[str, str]:
    """Every device node, and how opening it went: reading will do."""
    found = {}
    for folder, _, names in os.walk("/dev"):
        for path in (f"{folder}/{name}" for name in names):
            if stat.S_IFMT(os.lstat(path).st_mode) in (stat.S_IFCHR, stat.S_IFBLK):
                read, written = outcome(opened(path, os.O_RDONLY)), outcome(opened(path, os.O_WRONLY))
                found[path] = "ok" if "ok" in (read, written) else read
    return found


def writable_mounts() -> list[str]:
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if "rw" in fields[5].split(","):
            found.append(fields[4])
    return found


def writable_kernel_files() -> list[str]:
    """All of /proc and /sys that would take a write, but for what is of a process."""
    found = []
    for top in ("/proc", "/sys"):
        for folder, folders, names in os.walk(top):
            if folder == "/proc":
                folders[:] = [name for name in folders if not name.isdecimal() and name not in ("self", "thread-self")]
            paths = [Path(folder, name) for name in names]
            found += [str(path) for path in paths if not path.is_symlink() and os.access(path, os.W_OK)]
    return found


def opened_socket(family: int, kind: int) -> Callable[[], None]:
    return lambda: socket.socket(family, kind).close()


def families() -> dict[int, str]:
    found = {}
    for family in range(1, 46):
        kinds = (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET)
        outcomes = [outcome(opened_socket(family, kind)) for kind in kinds]
        found[family] = next((one for one in outcomes if one != "EAFNOSUPPORT"), "EAFNOSUPPORT")
    return found


def calls(names: list[str]) -> dict[str, str]:
    """Each system call of that name, with arguments that no kernel takes; those this machine has not are left out."""
    resolve = ctypes.CDLL("libseccomp.so.2").seccomp_syscall_resolve_name
    numbers = {name: resolve(name.encode()) for name in names}
    return {name: outcome(libc("syscall", number, *[ctypes.c_long(-1)] * 6)) for name, number in numbers.items()
            if number >= 0}  # fmt: skip


def write(path: str) -> Callable[[], object]:
    return lambda: Path(path).write_text("probe\n")


ATTEMPTS: dict[str, Callable[[], object]] = {
    "camera": opened("/dev/video0"),
    "encoder": opened("/dev/video11"),
    "sound control": opened("/dev/snd/controlC0"),
    "sound capture": opened("/dev/snd/pcmC0D0c"),
    "gpio": opened("/dev/gpiochip0"),
    "keypad": opened("/dev/input/event0", os.O_RDONLY),
    "screen": opened("/dev/dri/card0"),
    "state": write(STATE + "/probe"),
    "runtime": write(RUNTIME + "/probe"),
    "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close(),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
    "real-time": lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(10)),
    "watchdog": opened("/dev/watchdog0", os.O_WRONLY),
    "uinput": opened("/dev/uinput"),
    "disk": opened("/dev/loop0"),
    "memory": opened("/dev/mem", os.O_RDONLY),
    "kernel log": opened("/dev/kmsg"),
    "tun": opened("/dev/net/tun"),
    "make a node": lambda: os.mknod(STATE + "/node", 0o666 | stat.S_IFCHR, os.makedev(1, 1)),
    "make a set-user-ID file": lambda: os.chmod(STATE + "/probe", 0o4755),  # noqa: S103, PTH101
    "run a set-user-ID program": set_user_id_program,
    "write /": write("/probe"),
    "write /var/lib": write("/var/lib/probe"),
    "write /run": write("/run/probe"),
    "write /boot": write("/boot/probe"),
    "write /usr": write("/usr/probe"),
    "write /etc": write("/etc/probe"),
    "write the program": write("/opt/edgecall/room/probe"),
    "write kernel settings": write("/proc/sys/kernel/hostname"),
    "read home": lambda: list(Path("/root").iterdir()),
    "read shadow": opened("/etc/shadow", os.O_RDONLY),
    "read another's state": opened("/var/lib/another/secret", os.O_RDONLY),
    "read another's public file at home": opened("/home/another/public", os.O_RDONLY),
    "read another's public file in /tmp": opened("/tmp/public", os.O_RDONLY),  # noqa: S108
    "read the memory of another": opened("/proc/1/mem", os.O_RDONLY),
    "signal another": lambda: os.kill(1, 0),
    "connect to systemd": lambda: connected("/run/systemd/private"),
    "write the control group": write("/sys/fs/cgroup/cgroup.procs"),
    "raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close(),
    "too much real-time": lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(21)),
    "personality": libc("personality", 0x0040000),
    "enter a namespace": libc("setns", os.open("/proc/self/ns/net", os.O_RDONLY), 0),
    "clone by another call": libc("syscall", 435, None, 0),
    "packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
    "set clock": lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()),
    "become root": lambda: os.setuid(0),
    "mount": libc("mount", b"none", b"/tmp", b"tmpfs", 0, None),
    "remount": libc("mount", None, b"/usr", None, 32 | 4096, None),
    "host name": libc("sethostname", b"probe", 5),
    "reboot": libc("reboot", 0),
    "trace": libc("ptrace", 16, 1, None, None),
    "load module": libc("syscall", 313, -1, b"", 0),
}


if __name__ == "__main__":
    found: dict[str, object] = {name: outcome(act) for name, act in ATTEMPTS.items()}
    found |= {"nodes": nodes(), "writable mounts": writable_mounts(), "writable kernel files": writable_kernel_files(),
              "families": families(), "calls": calls(json.loads(Path(sys.argv[1]).read_text())),
              "namespaces": {name: outcome(libc("unshare", flag)) for name, flag in NAMESPACES.items()},
              "cloned namespaces": {name: outcome(cloned(flag)) for name, flag in NAMESPACES.items() if flag > 0xFF}}
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    found |= {"uid": os.getuid(), "processes": len(processes()), "seccomp": status["Seccomp"],
              "capabilities": int(status["CapBnd"], 16), "no new privileges": status["NoNewPrivs"]}  # fmt: skip
    json.dump(found, sys.stdout)
