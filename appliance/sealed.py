"""Secrets that are kept: encrypted with a key that lies elsewhere, such as in a systemd credential.

AES-256-GCM (NIST SP 800-38D) with a random nonce; its key is made of the secret by HKDF-SHA256 (RFC 5869), one for each
purpose, which is authenticated too: what was kept for one is of no use for another.
"""

from __future__ import annotations

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

__all__ = ["is_sealed", "seal", "unseal"]

MARK: Final = b"edgecall-sealed-1\n"
NONCE: Final = 12  # bytes


def is_sealed(content: bytes) -> bool:
    return content.startswith(MARK)


def seal(content: bytes, key: str, purpose: str) -> bytes:
    """``key``: at least 128 random bits as a text; it is not stretched."""
    nonce = os.urandom(NONCE)
    return MARK + nonce + AESGCM(_derived(key, purpose)).encrypt(nonce, content, purpose.encode())


def unseal(content: bytes, key: str, purpose: str) -> bytes:
    """Raises ValueError where it was sealed with another key or for another purpose, or is damaged."""
    nonce, sealed = content[len(MARK) : len(MARK) + NONCE], content[len(MARK) + NONCE :]
    if not is_sealed(content) or len(nonce) < NONCE:
        raise ValueError("it is not encrypted as it should be")
    try:
        return AESGCM(_derived(key, purpose)).decrypt(nonce, sealed, purpose.encode())
    except InvalidTag:
        raise ValueError("it was encrypted with another key, or is damaged") from None


def _derived(key: str, purpose: str) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=purpose.encode()).derive(key.encode())
