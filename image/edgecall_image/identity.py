"""The device's own key and what names it: made on the device, never leaves it. By ``openssl``."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from edgecall_image.durable import replace_file
from edgecall_image.errors import ImageError

__all__ = ["IdentityError", "certificate_request", "device_key"]

OPENSSL_S: Final = 60.0
SUBJECT: Final = "subject: "


class IdentityError(ImageError):
    """openssl did not make what was asked of it."""


def device_key(path: Path, group: int) -> None:
    """An EC key on P-256 in PEM, for root and ``group`` to read; the one that is there stays. Raises IdentityError, and
    OSError where it cannot be written."""
    if not path.exists():
        replace_file(path, _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"))
    os.chown(path, -1, group)
    path.chmod(0o440)


def certificate_request(path: Path, key: Path, name: str) -> str:
    """The request in PEM for a certificate of ``key`` with the common name ``name``, kept in ``path``: each one made
    has another signature, and what is told again is to be the same. Raises as ``device_key``."""
    try:
        subject, _, request = path.read_text().partition("\n")
    except (OSError, ValueError):
        subject = request = ""
    if subject != f"{SUBJECT}{name}":
        request = _openssl("req", "-new", "-batch", "-key", str(key), "-subj", f"/CN={name}").decode()
        replace_file(path, f"{SUBJECT}{name}\n{request}".encode())
    return request


def _openssl(*arguments: str) -> bytes:
    try:
        result = subprocess.run(["openssl", *arguments], capture_output=True, timeout=OPENSSL_S, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise IdentityError(f"openssl {arguments[0]}: {error}") from error
    if result.returncode:
        raise IdentityError(f"openssl {arguments[0]}: {result.stderr.decode(errors='replace').strip()}")
    return result.stdout
