"""Secrets: text that never shows itself, read from files or systemd credentials and from nowhere else."""

from __future__ import annotations

import hmac
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn

__all__ = ["CREDENTIAL", "Secret", "read_secret"]

CREDENTIAL: Final = "credential:"
"""Prefix of a ``*_file`` value that names a systemd credential in place of a path (systemd.exec, Credentials)."""

MAX_BYTES: Final = 4096
"""A token or password is a line; more is the wrong file."""


class Secret:
    """A text that shows itself as ``***`` in logs, state and errors; only ``reveal()`` gives it.

    It is no ``str`` on purpose: the C encoder of json, ``"".join`` and a format width would show a subclass.
    It cannot be pickled or encoded as JSON; copies are the object itself. Equality takes constant time.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself; give it to the one who needs it and keep no copy."""
        return self._text

    def __repr__(self) -> str:
        return "'***'" if self._text else "''"

    def __str__(self) -> str:
        return "***" if self._text else ""

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Secret:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret cannot be pickled")


def read_secret(source: str, base: Path, environ: Mapping[str, str]) -> Secret:
    """The secret that ``source`` names: ``credential:NAME``, or a path (relative to ``base``).

    Raises ValueError with words for the person who must act; the words never hold the content.
    """
    path = _locate(source, base, environ)
    try:
        # O_NONBLOCK: opening a named pipe without a writer would otherwise hang the start for ever
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        # the path is not shown: where there is no such file, somebody may have pasted the secret itself
        raise ValueError(f"the file it names cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise ValueError(f"{path} is not a regular file")
        if mode & stat.S_IROTH:
            raise ValueError(f"every user of this machine can read {path}: run chmod 600 {path}")
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path} holds more than {MAX_BYTES} bytes: it is not a token or password")
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text") from None  # the cause would quote the content
    if not text:
        raise ValueError(f"{path} is empty")
    if not text.isprintable():
        raise ValueError(f"{path} holds more than one line, or control characters")
    return Secret(text)


def _locate(source: str, base: Path, environ: Mapping[str, str]) -> Path:
    if source.startswith(("/", "~/", "./", "../")):
        return base / Path(source).expanduser()
    if not source.startswith(CREDENTIAL):
        raise ValueError(
            "must be the path of a file, beginning with '/' or './', or 'credential:NAME'; never the secret itself"
        )
    name = source.removeprefix(CREDENTIAL)
    if not name or "/" in name or name in {".", ".."}:
        raise ValueError("after 'credential:' comes the name of a systemd credential, without '/'")
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise ValueError(
            f"there are no systemd credentials here: start it as a service with LoadCredential={name}:PATH, "
            "or name a file"
        )
    return Path(folder) / name
