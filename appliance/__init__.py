"""Edgecall: the calling appliance. ``python -m appliance`` (or ``edgecall run``) starts it."""

__version__ = "0.1.0"
