"""dnspython stays unloaded until a candidate is a name, and then aioice's own mDNS answers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from aioice import ice

from appliance.media import mdns_seam

RESOLVES = """
import asyncio, sys
import appliance.house
from aioice import ice
loaded = [name for name in sys.modules if name.startswith("dns.")]
assert not loaded, loaded

async def main():
    first, second = await asyncio.gather(ice.get_or_create_mdns_protocol(1), ice.get_or_create_mdns_protocol(2))
    assert first is second
    from aioice.mdns import MDnsProtocol
    assert isinstance(first, MDnsProtocol), first
    assert "dns.zone" in sys.modules
    await ice.unref_mdns_protocol(1)
    await ice.unref_mdns_protocol(2)

asyncio.run(main())
"""


def test_it_is_loaded_with_the_first_name_and_not_before() -> None:
    """In a process of its own: this one has loaded it."""
    done = subprocess.run([sys.executable, "-c", RESOLVES], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", [
    "a.local", "1b9e6c1e-2f0a-4b8c-9d7e-0123456789ab.local", f"{'a' * 63}.local", f"{'a' * 64}.local", "a.local\n",
    "a.local.", "a.b.local", ".local", "local", "", "192.0.2.1", "fe80::1", "a_b.local", "A.LOCAL", "ä.local"])
def test_names_are_told_from_addresses_as_aioice_does(name: str) -> None:
    stock = mdns_seam.loaded()
    assert stock.is_mdns_hostname is not mdns_seam.is_mdns_hostname
    assert mdns_seam.is_mdns_hostname(name) == stock.is_mdns_hostname(name)


def test_the_agent_asks_for_nothing_else_of_the_module() -> None:
    asked = set(re.findall(r"\bmdns\.(\w+)", Path(ice.__file__).read_text()))
    assert asked == {"is_mdns_hostname", "create_mdns_protocol", "MDnsProtocol"}


def test_what_is_loaded_already_is_left_alone() -> None:
    stock = mdns_seam.loaded()
    mdns_seam.install()
    assert mdns_seam.loaded() is stock
