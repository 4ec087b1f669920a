"""Input with faults: real packets with bytes changed, cut, doubled and lengthened, by a seed."""

from __future__ import annotations

import random

__all__ = ["mutated"]

EDGES = (0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF)


def mutated(packet: bytes, chance: random.Random, keep: int = 0) -> bytes:
    """One to four faults in ``packet``; its first ``keep`` bytes stay, so that it gets as far as that."""
    data = bytearray(packet)
    for _ in range(chance.randint(1, 4)):
        at = chance.randint(keep, max(keep, len(data) - 1))
        match chance.randrange(6):
            case 0 if at < len(data):
                data[at] = chance.randrange(256)
            case 1 if at < len(data):
                data[at] = chance.choice(EDGES)
            case 2:
                del data[at:]
            case 3:
                data[at:at] = chance.randbytes(chance.randint(1, 40))
            case 4:
                data[at:at] = data[at : at + chance.randint(1, 20)]
            case _ if at + 2 <= len(data):
                data[at : at + 2] = chance.choice((b"\0\0", b"\xff\xff", b"\0\x01", b"\x80\0"))
    return bytes(data)
