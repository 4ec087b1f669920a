"""Caring for the device: diagnostics, supervision, systemd."""
