"""How like two pictures are, as an eye sees it."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from PIL import Image

__all__ = ["structural_similarity"]

BLOCK: Final = 8
_C1: Final = (0.01 * 255) ** 2
_C2: Final = (0.03 * 255) ** 2


def structural_similarity(one: Image.Image, other: Image.Image) -> float:
    """Mean SSIM (Wang, Bovik, Sheikh, Simoncelli, 2004) of two grey pictures of one size, in blocks of 8 by 8; 1 is the
    same."""
    a, b = _blocks(one), _blocks(other)
    mean_a, mean_b = a.mean(axis=1), b.mean(axis=1)
    var_a, var_b = a.var(axis=1), b.var(axis=1)
    covariance = (a * b).mean(axis=1) - mean_a * mean_b
    return float(np.mean((2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)
                         / ((mean_a**2 + mean_b**2 + _C1) * (var_a + var_b + _C2))))


def _blocks(picture: Image.Image) -> np.ndarray[Any, np.dtype[np.float64]]:
    wide, high = picture.width // BLOCK * BLOCK, picture.height // BLOCK * BLOCK
    grey = np.asarray(picture.convert("L"), dtype=np.float64)[:high, :wide]
    return grey.reshape(high // BLOCK, BLOCK, wide // BLOCK, BLOCK).swapaxes(1, 2).reshape(-1, BLOCK * BLOCK)
