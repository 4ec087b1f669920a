"""The network of the boards of one worker: a cable, whose end here lies in a network namespace of its own."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.image.first_file import HERE

__all__ = ["TAP", "Cable"]

TAP: Final = "rig0"
CLONE_NEWNET: Final = 0x40000000
_NAMESPACE: Final = "/proc/thread-self/ns/net"


class Cable:
    """All workers have the same addresses, so each has a namespace for them, as long as it lives.

    A thread is there while it is ``plugged``, with what it makes meanwhile: sockets, threads, programs. At any other
    time it has the network of the machine, by which an image is built.
    """

    def __init__(self) -> None:
        before = os.open(_NAMESPACE, os.O_RDONLY)
        try:
            _call("unshare", CLONE_NEWNET)
            try:
                self._here = os.open(_NAMESPACE, os.O_RDONLY)
                for words in ("link set lo up", f"tuntap add {TAP} mode tap", f"address add {HERE}/24 dev {TAP}",
                              f"link set {TAP} up"):
                    subprocess.run(["ip", *words.split()], check=True)
            finally:
                _call("setns", before, CLONE_NEWNET)
        finally:
            os.close(before)

    @contextmanager
    def plugged(self) -> Iterator[None]:
        before = os.open(_NAMESPACE, os.O_RDONLY)
        try:
            _call("setns", self._here, CLONE_NEWNET)
            try:
                yield
            finally:
                _call("setns", before, CLONE_NEWNET)
        finally:
            os.close(before)


def _call(name: str, *arguments: int) -> None:
    """Of the C library: ``os`` has these from Python 3.12 on."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        raise OSError(ctypes.get_errno(), f"{name}: a network namespace needs root")
