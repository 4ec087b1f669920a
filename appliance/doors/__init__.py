"""Doors of the appliance: MQTT, HTTP, panel, CLI. They speak vocabulary and never know each other."""
