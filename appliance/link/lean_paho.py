"""What is used of paho, without dnspython: paho loads that (3 MiB, 40 ms) for SRV records, which nothing here asks for,
and does without where there is none."""

from __future__ import annotations

import sys

__all__ = ["CallbackAPIVersion", "PacketTypes", "Properties", "ReasonCode", "SubscribeOptions", "paho"]

_UNUSED = "dns.resolver"
_loaded = sys.modules.get(_UNUSED)
sys.modules[_UNUSED] = None  # type: ignore[assignment] # whoever imports it is told that it is not there
try:
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode
    from paho.mqtt.subscribeoptions import SubscribeOptions
finally:
    del sys.modules[_UNUSED]
    if _loaded is not None:
        sys.modules[_UNUSED] = _loaded
