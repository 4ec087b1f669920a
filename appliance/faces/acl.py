"""The broker's access list (mosquitto.conf(5), acl_file), from the vocabulary: one line per permitted verb.

MQTT does not tell a device who published, so the broker must know who may publish what. A wildcard on
``cmd/`` would give every operator the administrator's verbs; none is ever written. Mosquitto grants every SUBSCRIBE
and filters at delivery: test with messages, never with SUBACK.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from appliance.vocabulary import ID_PATTERN, ROOT, Scope, verbs_for

__all__ = ["User", "access_list", "main"]

DEVICE_WRITES: Final = ("state/#", "event/#", "ack/#", "log/#")
USER_READS: Final = ("state/#", "event/#", "ack/#", "log/#")


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who commands devices. ``devices``: ids, or ``+`` for every device of the broker."""

    name: str
    scope: Scope
    devices: tuple[str, ...] = ("+",)


def access_list(users: Iterable[User], devices: Sequence[str] = ()) -> str:
    """The file's text. ``devices``: ids known already, to refuse an operator of the same name.

    Raises ValueError for a name that is none, stands twice, or belongs to a device.
    """
    seen: set[str] = set(devices)
    lines = [
        "# Written by `python -m appliance.faces.acl` from the vocabulary; do not edit, add users there.",
        "# A device is known by its user name, which is its client id (use_username_as_clientid) and, with TLS,",
        "# its certificate's common name.",
        *(f"pattern write {ROOT}/%u/{topic}" for topic in DEVICE_WRITES),
        f"pattern read {ROOT}/%u/cmd/#",
        "# Calls between devices: the sender is a segment of the topic, which the broker proves.",
        f"pattern write {ROOT}/+/signal/%u",
        f"pattern read {ROOT}/%u/signal/+",
    ]
    for user in users:
        for name in (user.name, *(device for device in user.devices if device != "+")):
            if re.fullmatch(ID_PATTERN, name) is None:
                raise ValueError(f"{name!r} is no name: 3 to 40 of a-z, 0-9 and -")
        if user.name in seen:
            raise ValueError(f"{user.name!r} stands twice, or is a device's id")
        seen.add(user.name)
        lines += ["", f"# {user.scope.value}", f"user {user.name}"]
        for device in user.devices:
            lines += [f"topic read {ROOT}/{device}/{topic}" for topic in USER_READS]
            lines += [f"topic write {ROOT}/{device}/cmd/{verb.name}" for verb in verbs_for(user.scope)]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m appliance.faces.acl lena:operator boss:admin --device door-1 > acl``."""
    parser = argparse.ArgumentParser(prog="python -m appliance.faces.acl", description="Write a Mosquitto acl_file.")
    parser.add_argument("users", nargs="*", metavar="NAME:SCOPE[:DEVICE,...]",
                        help="scope: operator, device or admin; devices: ids, default all")
    parser.add_argument("--device", action="append", default=[], metavar="ID", help="a device's id, to find clashes")
    options = parser.parse_args(arguments)
    try:
        text = access_list([_user(given) for given in options.users], options.device)
    except ValueError as error:
        parser.error(str(error))
    sys.stdout.write(text)
    return 0


def _user(given: str) -> User:
    name, _, rest = given.partition(":")
    scope, _, devices = rest.partition(":")
    try:
        return User(name, Scope(scope), tuple(devices.split(",")) if devices else ("+",))
    except ValueError:
        raise ValueError(f"{given!r}: after the name stands :operator, :device or :admin") from None


if __name__ == "__main__":
    sys.exit(main())
