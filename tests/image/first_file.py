"""The first boot file of the tests: how the appliance finds its network, its updates, and whom it may call."""

from __future__ import annotations

from typing import Final

from tests.image.server import PORT

__all__ = ["HERE", "HOST_NAME", "LOBBY_PORT", "NAME", "RESULT", "SECRET", "THERE", "UPDATE_AUTHORITY", "first_file"]

NAME, RESULT = "edgecall.toml", "edgecall-result.txt"
HOST_NAME: Final = "front-door"
HERE, THERE = "10.98.0.1", "10.98.0.2"
"""The two ends of the network cable."""
UPDATE_AUTHORITY: Final = "update-ca.pem"
LOBBY_PORT: Final = 8091
SECRET: Final = "a token of forty characters, or nearly so"
"""Between the two appliances of ``call.py``."""


def first_file() -> str:
    return f"""\
# as a person writes it, on the computer that wrote the card
[system]
hostname = "{HOST_NAME}"
time_zone = "Europe/Berlin"
[network.ethernet]
address = "{THERE}/24"
[device]
name = "Front door"
[video]
width = 640
height = 360
fps = 15
[update]
origins = ["https://{HERE}:{PORT}/"]
ca_file = "{UPDATE_AUTHORITY}"
call_bitrate = 50_000_000
[[direct.peers]]
name = "lobby"
url = "http://127.0.0.1:{LOBBY_PORT}"
token = "{SECRET}"
"""
