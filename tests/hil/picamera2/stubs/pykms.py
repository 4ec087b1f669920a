"""Stands in for the preview's library, which picamera2 imports and a device without a preview never calls."""


class _Named:
    def __getattr__(self, name: str) -> str:
        return name


PixelFormat = _Named()
