"""Cameras of real boards: USB by Video4Linux, CSI by picamera2, in a process of their own."""
