"""Calls over the telephone network: SIP (RFC 3261) with voice over RTP.

Most of it knows neither sockets nor the appliance: bytes, a clock with timers and a way to send are given to ``agent``.
``transport`` has the sockets; ``leg``, ``account`` and ``provider`` make calls of the appliance of it.
"""
