"""The HTTP door: REST, server-sent events, console pages, signalling WebSockets, metrics."""

from __future__ import annotations

from appliance.doors.http.listen import PortBusyError
from appliance.doors.http.ports import Ports
from appliance.doors.http.server import HttpDoor

__all__ = ["HttpDoor", "PortBusyError", "Ports"]
