"""The EDID of HDMI inputs: what a source reads of it."""

from __future__ import annotations

from hw.pi.dv import edid


def test_a_source_is_told_to_send_720p() -> None:
    block = edid()
    assert len(block) == 128
    assert block[:8] == b"\0\xff\xff\xff\xff\xff\xff\0"
    assert sum(block) % 256 == 0
    assert block[126] == 0  # extensions
    timing = block[54:72]
    assert int.from_bytes(timing[:2], "little") * 10 == 74_250  # kHz
    width, height = timing[2] | (timing[4] >> 4) << 8, timing[5] | (timing[7] >> 4) << 8
    whole = (width + (timing[3] | (timing[4] & 15) << 8)) * (height + (timing[6] | (timing[7] & 15) << 8))
    assert (width, height, round(74_250_000 / whole)) == (1280, 720, 60)
    assert block[72:77] == b"\0\0\0\xfc\0"
    assert block[77:86] == b"Edgecall\n"
    assert block[90:95] == b"\0\0\0\xfd\0"
    assert block[95:99] == bytes((23, 61, 15, 68))  # 60 Hz and 45 kHz are inside
    assert block[99] * 10 >= 74.25
