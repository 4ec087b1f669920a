"""A real Asterisk: an exchange with telephones of its own, an echo, a tone, and a conference behind a PIN."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests.support.another_debian import command_in, folder_of, libraries_in
from tests.support.ports import free_port
from tests.support.waiting import until

__all__ = ["ASKS_HERTZ", "DIGITS", "PASSWORD", "PIN", "PLAIN_DTLS", "SAYS_HERTZ", "WEBRTC", "Asterisk", "asterisk"]

START_S: Final = 30.0
COMMAND_S: Final = 10.0
PASSWORD: Final = "secret"
PIN: Final = "4711"
SAYS_HERTZ: Final = 1000
ASKS_HERTZ: Final = 600
DIGITS: Final = "0123456789*#ABCD"

MODULES: Final = (
    "app_confbridge", "app_dial", "app_echo", "app_playback", "app_playtones", "app_read", "app_senddtmf",
    "app_transfer", "app_verbose", "bridge_builtin_features", "bridge_native_rtp", "bridge_simple",
    "bridge_softmix", "chan_bridge_media", "chan_pjsip", "codec_alaw", "codec_g722", "codec_gsm",
    "codec_opus_open_source", "codec_resample", "codec_ulaw", "format_gsm", "format_pcm", "func_channel",
    "pbx_config", "res_clioriginate", "res_crypto", "res_format_attr_opus", "res_musiconhold", "res_pjproject",
    "res_pjsip", "res_pjsip_authenticator_digest", "res_pjsip_caller_id", "res_pjsip_dtmf_info",
    "res_pjsip_endpoint_identifier_user", "res_pjsip_logger", "res_pjsip_nat", "res_pjsip_pubsub",
    "res_pjsip_refer", "res_pjsip_registrar", "res_pjsip_rfc3326", "res_pjsip_sdp_rtp", "res_pjsip_session",
    "res_rtp_asterisk", "res_sorcery_astdb", "res_sorcery_config", "res_sorcery_memory", "res_srtp",
    "res_timing_timerfd")

MAIN: Final = """
[directories]
astetcdir => {folder}
astmoddir => {modules}
astdatadir => {data}
astvarlibdir => {folder}
astdbdir => {folder}
astkeydir => {folder}
astspooldir => {folder}
astrundir => {run}
astlogdir => {folder}
[options]
verbose = 4
nocolor = yes
defaultlanguage = en_US_f_Allison
"""

# echo: what one says comes back; tone, keys: it says them; meeting: asks for PIN by a tone; hall: by a voice, for ever;
# sent: who calls is asked to call the tone in its place; anybody else is a telephone
DIALPLAN: Final = f"""
[house]
exten => echo,1,Answer()
 same => n,Echo()
exten => keys,1,Answer()
 same => n,Wait(1)
 same => n,SendDTMF({DIGITS},120,120)
 same => n,Wait(600)
exten => tone,1,Answer()
 same => n,PlayTones({SAYS_HERTZ})
 same => n,Wait(600)
exten => meeting,1,Answer()
 same => n(ask),PlayTones({ASKS_HERTZ}/700)
 same => n,Wait(1)
 same => n,StopPlayTones()
 same => n,Set(pin=)
 same => n,Read(pin,,10,,1,8)
 same => n,Verbose(1,pressed ${{pin}})
 same => n,GotoIf($["${{pin}}" = "{PIN}"]?in)
 same => n,GotoIf($["${{pin}}" = ""]?end:ask)
 same => n(in),ConfBridge(hall)
 same => n(end),Hangup()
exten => hall,1,Answer()
 same => n(ask),Set(pin=)
 same => n,Read(pin,conf-getpin,10,,1,8)
 same => n,Verbose(1,pressed ${{pin}})
 same => n,GotoIf($["${{pin}}" = "{PIN}"]?in)
 same => n,Playback(conf-invalidpin)
 same => n,Goto(ask)
 same => n(in),Playback(conf-placeintoconf)
 same => n,ConfBridge(hall)
exten => sent,1,Answer()
 same => n,PlayTones({ASKS_HERTZ})
 same => n,Wait(2)
 same => n,Transfer(PJSIP/sip:tone@${{HERE}})
 same => n,Verbose(1,transferred ${{TRANSFERSTATUS}})
 same => n,Wait(600)
exten => _[a-z].,1,Dial(PJSIP/${{EXTEN}},30)
"""

TRANSPORT: Final = """
[{name}]
type = transport
protocol = {name}
bind = {host}:{port}
"""

USER: Final = """
[{name}]
type = auth
auth_type = digest
username = {name}
password = {password}
supported_algorithms_uas = {algorithms}
[{name}]
type = aor
max_contacts = 2
[{name}]
type = endpoint
context = house
auth = {name}
aors = {name}
disallow = all
allow = {codecs}
direct_media = no
rtp_symmetric = yes
moh_passthrough = yes
send_pai = yes
callerid = "{name}" <{name}>
media_encryption = {encryption}
"""

SDES: Final = "sdes"
WEBRTC: Final = "dtls\nwebrtc = yes"  # with ICE, and RTCP on the port of RTP
PLAIN_DTLS: Final = "dtls\ndtls_auto_generate_cert = yes\nrtcp_mux = no\nice_support = no"
"""What stands behind ``media_encryption``."""


class Asterisk:
    """``users``: who may register, all with PASSWORD. ``tls``: certificate and key, for a port of its own, with
    encrypted sound for all, as ``sound`` says. ``algorithms``: of the challenges."""

    def __init__(
        self, folder: Path, users: Collection[str], *, codecs: str = "opus,g722,alaw,ulaw",
        tls: tuple[Path, Path] | None = None, sound: str = SDES, algorithms: str = "SHA-256,MD5",
        host: str = "127.0.0.1",
    ) -> None:
        self.host = host
        self.port = free_port()
        self.tls_port = free_port()
        self.log: list[str] = []
        self._folder = folder
        self._users = users
        self._codecs = codecs
        self._tls = tls
        self._sound = sound
        self._algorithms = algorithms
        self._command: list[str] = []
        self._run = Path(tempfile.mkdtemp(prefix="asterisk-"))  # a path to a socket has 107 characters
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Until it says that it is ready."""
        root = await folder_of("forky", "asterisk")
        await asyncio.to_thread(self._write, root)
        self._command = [*command_in(root, "usr/sbin/asterisk"), "-C", str(self._folder / "asterisk.conf")]
        self._process = await asyncio.create_subprocess_exec(
            *self._command, "-f", "-vvvv", "-n", stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=self._folder,
            env={**os.environ, "HOME": str(self._folder)})
        self._reader = asyncio.create_task(self._read(self._process))
        await self.said("Asterisk Ready", START_S)

    def _write(self, root: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        transports = [("udp", self.port), ("tcp", self.port)]
        sip = "".join(TRANSPORT.format(name=name, host=self.host, port=port) for name, port in transports)
        if self._tls is not None:
            certificate, key = self._tls
            sip += TRANSPORT.format(name="tls", host=self.host, port=self.tls_port)
            sip += f"method = tlsv1_2\ncert_file = {certificate}\npriv_key_file = {key}\n"
        encryption = "no" if self._tls is None else self._sound
        sip += "".join(USER.format(name=name, password=PASSWORD, codecs=self._codecs, algorithms=self._algorithms,
                                   encryption=encryption) for name in self._users)
        main = MAIN.format(folder=self._folder, run=self._run, data=root / "usr/share/asterisk",
                           modules=libraries_in(root) / "asterisk/modules")
        for name, text in {
            "asterisk": main, "pjsip": sip, "extensions": f"[globals]\nHERE = {self.host}:{self.port}\n{DIALPLAN}",
            "modules": "[modules]\nautoload = no\n" + "".join(f"load = {name}.so\n" for name in MODULES),
            "logger": "[general]\n[logfiles]\nconsole => notice,warning,error,verbose\n",
            "confbridge": "[general]\n[default_bridge]\ntype = bridge\n[default_user]\ntype = user\nquiet = yes\n",
            "rtp": "[general]\nrtpstart = 20000\nrtpend = 29999\n", "musiconhold": "[general]\n",
        }.items():
            (self._folder / f"{name}.conf").write_text(text.lstrip())

    async def stop(self) -> None:
        """As a crash would end it."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if self._reader is not None:
            await self._reader
        await asyncio.to_thread(shutil.rmtree, self._run, ignore_errors=True)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            self.log.append(line.decode(errors="replace"))
            del self.log[:-1000]

    async def said(self, words: str, within_s: float = 10.0) -> None:
        """Until its log has these words."""
        await until(lambda: any(words in line for line in self.log),
                    f"{words!r} of Asterisk:\n{''.join(self.log[-40:])}", within_s)

    async def tell(self, command: str) -> str:
        """A command of its console; returns what it says."""
        telling = await asyncio.create_subprocess_exec(
            *self._command, "-rx", command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT)
        said, _ = await asyncio.wait_for(telling.communicate(), COMMAND_S)
        assert telling.returncode == 0, said
        return said.decode(errors="replace")

    async def free(self) -> None:
        """Until no call goes through it any more."""
        said = ""
        for _ in range(100):
            said = await self.tell("core show channels")
            if "0 active channels" in said:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"calls are left at Asterisk:\n{said}")


@asynccontextmanager
async def asterisk(folder: Path, *users: str, **more: object) -> AsyncIterator[Asterisk]:
    made = Asterisk(folder, users, **more)  # type: ignore[arg-type]
    try:
        await made.start()
        yield made
    finally:
        await made.stop()
