"""Opus by libopus itself (RFC 6716): what FFmpeg's wrappers hide is what a call needs, in-band FEC, concealment, DTX.

The library is the one PyAV brings along, or the system's (Debian ``libopus0``) where PyAV was built without its own.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from pathlib import Path
from typing import Any, Final

import av

from appliance.media.sound import RATE

__all__ = ["DTX_BYTES", "OpusDecoder", "OpusEncoder", "OpusError", "frame_samples", "has_fec", "is_dtx"]

DTX_BYTES: Final = 2
"""A packet this small carries no sound: the encoder began or refreshes a pause (RFC 6716 2.1.9)."""

MAX_FRAME: Final = RATE * 120 // 1000  # samples of the longest packet (RFC 6716 3.2.5)
GRAIN: Final = RATE // 400  # 2.5 ms: what is made up comes in multiples of it
MAX_PACKET: Final = 1275 * 3
MAX_FRAMES: Final = 48  # in one packet

APPLICATION_VOIP: Final = 2048
SET_BITRATE: Final = 4002
SET_VBR: Final = 4006
SET_COMPLEXITY: Final = 4010
SET_INBAND_FEC: Final = 4012
SET_PACKET_LOSS: Final = 4014
SET_DTX: Final = 4016
SET_SIGNAL: Final = 4024
SIGNAL_VOICE: Final = 3001

_pointer: Final = ctypes.c_void_p
_int: Final = ctypes.c_int


class OpusError(ValueError):
    """libopus refused a packet, or is not there."""


def _path() -> str:
    bundled = sorted((Path(av.__file__).parent.parent / "av.libs").glob("libopus*.so*"))
    found = str(bundled[0]) if bundled else ctypes.util.find_library("opus")
    if found is None:
        raise OpusError("libopus is neither in PyAV nor on this system: install it with  apt-get install libopus0")
    return found


def _declare(library: Any) -> Any:
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "opus_decoder_create": (_pointer, [ctypes.c_int32, _int, ctypes.POINTER(_int)]),
        "opus_decoder_destroy": (None, [_pointer]),
        "opus_decode": (_int, [_pointer, ctypes.c_char_p, ctypes.c_int32, _pointer, _int, _int]),
        "opus_encoder_create": (_pointer, [ctypes.c_int32, _int, _int, ctypes.POINTER(_int)]),
        "opus_encoder_destroy": (None, [_pointer]),
        "opus_encode": (ctypes.c_int32, [_pointer, ctypes.c_char_p, _int, _pointer, ctypes.c_int32]),
        # variadic in C; on the calling conventions of x86-64 and arm64 Linux three whole numbers are passed alike
        "opus_encoder_ctl": (_int, [_pointer, _int, ctypes.c_int32]),
        "opus_packet_get_nb_samples": (_int, [ctypes.c_char_p, ctypes.c_int32, ctypes.c_int32]),
        "opus_packet_get_samples_per_frame": (_int, [ctypes.c_char_p, ctypes.c_int32]),
        "opus_packet_parse": (_int, [ctypes.c_char_p, ctypes.c_int32, _pointer, _pointer, _pointer, _pointer]),
        "opus_strerror": (ctypes.c_char_p, [_int]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


# Decoding runs on the audio thread, 40 us at a time: giving the GIL away for so little could cost it a whole switch
# interval (5 ms) to get it back, so that handle keeps it. Encoding takes ten times as long and runs on the loop.
_held: Final[Any] = _declare(ctypes.PyDLL(_path()))
_freeing: Final[Any] = _declare(ctypes.CDLL(_path()))


def _check(code: int) -> int:
    if code < 0:
        raise OpusError(f"libopus: {_held.opus_strerror(code).decode()}")
    return code


def frame_samples(packet: bytes) -> int:
    """Samples at 48 kHz of one channel in ``packet``. Raises OpusError for what is not Opus."""
    return _check(_held.opus_packet_get_nb_samples(packet, len(packet), RATE))


def is_dtx(packet: bytes) -> bool:
    """Whether the sender pauses with this packet."""
    return len(packet) <= DTX_BYTES


def has_fec(packet: bytes) -> bool:
    """Whether the packet repeats the one before it at low rate (LBRR, RFC 6716 4.2.4).

    The flags are the first symbols of the first frame, all of even probability, so they stand as plain bits: one per
    20 ms of voice activity, then the one asked for, and the same for the side channel of a stereo packet.
    """
    if not packet or packet[0] & 0x80:  # configurations 16 to 31 are CELT alone
        return False
    sizes, start = (ctypes.c_int16 * MAX_FRAMES)(), ctypes.c_int(0)
    count = _held.opus_packet_parse(packet, len(packet), None, None, sizes, ctypes.byref(start))
    if count <= 0 or sizes[0] == 0:
        return False
    voiced = max(1, _held.opus_packet_get_samples_per_frame(packet, RATE) // (RATE // 50))
    first = packet[start.value]
    if first >> (7 - voiced) & 1:
        return True
    return bool(packet[0] & 0x04 and first >> (6 - 2 * voiced) & 1)


class OpusDecoder:
    """One stream to 48 kHz mono s16; a stereo stream is mixed down by the decoder itself. Made for one thread."""

    def __init__(self) -> None:
        error = _int(0)
        self._state = _held.opus_decoder_create(RATE, 1, ctypes.byref(error))
        _check(error.value)
        self._pcm = ctypes.create_string_buffer(MAX_FRAME * 2)

    def __del__(self) -> None:
        if getattr(self, "_state", None):
            _held.opus_decoder_destroy(self._state)

    def duration(self, packet: bytes) -> int:
        """Samples in ``packet``. Raises OpusError."""
        return frame_samples(packet)

    def pauses(self, packet: bytes) -> bool:
        return is_dtx(packet)

    def repeats(self, packet: bytes) -> bool:
        return has_fec(packet)

    def decode(self, packet: bytes) -> bytes:
        """PCM of one packet. Raises OpusError."""
        return self._decode(packet, MAX_FRAME, 0)

    def previous(self, packet: bytes, samples: int) -> bytes:
        """The ``samples`` before ``packet``, from the copy it carries. Raises OpusError, also for too many."""
        if samples > MAX_FRAME:
            raise OpusError(f"no packet carries a copy of {samples} samples")
        # asked for less than the copy is of, the library makes something up instead
        whole = max(samples, _held.opus_packet_get_samples_per_frame(packet, RATE))
        return self._decode(packet, whole, 1)[-samples * 2 :]

    def conceal(self, samples: int) -> bytes:
        """``samples`` that go on from what was decoded last: extrapolated, or comfort noise after a DTX packet."""
        steps = [MAX_FRAME] * (samples // MAX_FRAME) + [samples % MAX_FRAME]
        return b"".join([self._decode(None, step, 0) for step in steps if step])

    def _decode(self, packet: bytes | None, samples: int, fec: int) -> bytes:
        """``samples``: at most MAX_FRAME, for the library writes as many as it is asked for."""
        size = 0 if packet is None else len(packet)
        if packet is not None and not size:
            raise OpusError("libopus: an empty packet")  # would mean: conceal
        room = -(-samples // GRAIN) * GRAIN
        got = _check(_held.opus_decode(self._state, packet, size, self._pcm, room, fec))
        return self._pcm.raw[: min(got, samples) * 2]


class OpusEncoder:
    """Speech: mono 48 kHz s16 to packets. ``bit_rate`` in bits per second, ``loss`` in per cent, 0..100."""

    def __init__(self, bit_rate: int, *, loss: int = 0, dtx: bool = False) -> None:
        error = _int(0)
        self._state = _freeing.opus_encoder_create(RATE, 1, APPLICATION_VOIP, ctypes.byref(error))
        _check(error.value)
        self._packet = ctypes.create_string_buffer(MAX_PACKET)
        for request, value in ((SET_VBR, 1), (SET_SIGNAL, SIGNAL_VOICE), (SET_INBAND_FEC, 1)):
            self._set(request, value)
        self.bit_rate, self.loss, self.dtx = bit_rate, loss, dtx

    def __del__(self) -> None:
        if getattr(self, "_state", None):
            _freeing.opus_encoder_destroy(self._state)

    @property
    def bit_rate(self) -> int:
        return self._bit_rate

    @bit_rate.setter
    def bit_rate(self, bits_per_second: int) -> None:
        self._set(SET_BITRATE, bits_per_second)
        self._bit_rate = bits_per_second

    @property
    def loss(self) -> int:
        """The share of packets, in per cent, that the copies of the frame before (in-band FEC) are sized for."""
        return self._loss

    @loss.setter
    def loss(self, percent: int) -> None:
        self._set(SET_PACKET_LOSS, percent)
        self._loss = percent

    @property
    def dtx(self) -> bool:
        """Whether silence is not sent (RFC 6716 2.1.9)."""
        return self._dtx

    @dtx.setter
    def dtx(self, on: bool) -> None:
        self._set(SET_DTX, int(on))
        self._dtx = on

    def complexity(self, level: int) -> None:
        """0 cheapest to 10 best."""
        self._set(SET_COMPLEXITY, level)

    def encode(self, pcm: bytes) -> bytes:
        """One packet of 2.5, 5, 10, 20, 40 or 60 ms; of at most DTX_BYTES when it need not be sent."""
        got = _check(_freeing.opus_encode(self._state, pcm, len(pcm) // 2, self._packet, MAX_PACKET))
        return self._packet.raw[:got]

    def _set(self, request: int, value: int) -> None:
        _check(_freeing.opus_encoder_ctl(self._state, request, value))
