"""Stands in for the writer of DNG files, which picamera2 imports and nothing here calls."""

PICAM2DNG = object
