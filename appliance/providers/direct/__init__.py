"""Direct calls: appliance, page and appliance on the LAN or over the broker, with no room server between them."""
