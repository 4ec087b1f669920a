"""The board ``auto``: this computer's own camera and sound card where it has some, the simulated ones elsewhere."""
