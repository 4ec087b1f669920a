"""Rooms of a Janus server (plug-in VideoRoom, multistream, Janus 1.x)."""
