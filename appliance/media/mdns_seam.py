"""The seam to aioice's mDNS: dnspython is loaded with the first candidate that is a name (``….local``), not before.

aioice imports it with everything else: 3 MiB, and 40 ms of the start. What the ICE agent asks of ``aioice.mdns`` is
answered here, from before the agent is imported.
"""

from __future__ import annotations

import asyncio
import re
import sys
from importlib import import_module
from types import ModuleType
from typing import Any, Final

__all__ = ["create_mdns_protocol", "install", "is_mdns_hostname", "loaded"]

MODULE: Final = "aioice.mdns"
_HOST: Final = re.compile(r"[a-zA-Z0-9-]{1,63}\.local\n?")  # the line's end as aioice's own has it


def is_mdns_hostname(name: str) -> bool:
    return _HOST.fullmatch(name) is not None


async def create_mdns_protocol() -> Any:
    """aioice's own, which is loaded beside the loop."""
    stock = await asyncio.to_thread(loaded)
    return await stock.create_mdns_protocol()


def install() -> None:
    """Stand in for the module until ``create_mdns_protocol``, unless it is loaded already."""
    if MODULE not in sys.modules:
        stand_in = ModuleType(MODULE, __doc__)
        stand_in.__dict__.update(is_mdns_hostname=is_mdns_hostname, create_mdns_protocol=create_mdns_protocol,
                                 MDnsProtocol=asyncio.DatagramProtocol)  # the last for an annotation alone
        sys.modules[MODULE] = stand_in


def loaded() -> ModuleType:
    """aioice's own module."""
    if getattr(sys.modules.get(MODULE), "create_mdns_protocol", None) is create_mdns_protocol:
        del sys.modules[MODULE]
    return import_module(MODULE)
