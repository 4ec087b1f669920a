"""The board ``pi``: what is soldered and plugged into a Raspberry Pi class computer, or any with V4L2 and ALSA."""
