"""The one MQTT connection of the device, below doors and providers."""
