"""The list of the private names that the seam stands on is found in the sources, and a name that went is told."""

from __future__ import annotations

from tests.support import private_names

STOCK = """
class Sender:
    def __init__(self):
        self._ssrc, self.__encoder = 1, None
    async def _run_rtp(self, codec):
        self.__stop()
    def __stop(self): ...
    def stop(self): ...
"""
SEAM = """
class Ours(Sender):
    async def _run_rtp(self, codec):
        self._own = self._ssrc
        setattr(self, "_Sender__encoder", None)
        super()._Sender__stop()
"""


def test_touched_are_the_names_that_are_used_and_are_theirs() -> None:
    there = {"stock.Sender": private_names.defined(STOCK)["Sender"]}
    assert private_names.touched(private_names.used(SEAM), there) == {"stock.Sender": {
        "_Sender__encoder": "", "_Sender__stop": "(self)", "_run_rtp": "(self, codec)", "_ssrc": "",
    }}


def test_a_name_that_went_and_a_method_that_is_called_otherwise_are_told() -> None:
    wanted = {"stock.Sender": private_names.defined(STOCK)["Sender"]}
    newer = STOCK.replace("self._ssrc,", "self.ssrc,").replace("codec", "codec, layer")
    there = {"stock.Sender": private_names.defined(newer)["Sender"]}
    assert private_names.missing(wanted, there) == ["stock.Sender._ssrc"]
    assert private_names.missing(wanted, {}) == [f"stock.Sender.{name}" for name in wanted["stock.Sender"]]
    assert private_names.changes(wanted, there) == ["stock.Sender._run_rtp: was (self, codec), is (self, codec, layer)"]


def test_the_installed_packages_have_what_the_seam_touches() -> None:
    uses = set().union(*(private_names.used(path.read_text()) for path in private_names.MEDIA.glob("*_seam.py")))
    names = private_names.touched(uses, private_names.installed())
    assert "_handle_rtcp_packet" in names["aiortc.rtcrtpreceiver.RTCRtpReceiver"]
    assert "_nominated" in names["aioice.ice.Connection"]
