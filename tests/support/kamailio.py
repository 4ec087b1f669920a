"""A real Kamailio: registrar and proxy for users of its own, over UDP, TCP, TLS and WebSockets on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests.support.ports import free_port

__all__ = ["WEBSOCKET", "Kamailio", "kamailio"]

START_S: Final = 10.0
PASSWORD: Final = "secret"
WEBSOCKET: Final = "/sip"
"""Path on the ports of TCP and TLS."""

CONFIG: Final = """
#!KAMAILIO
debug=1
log_stderror=yes
fork=yes
children=1
tcp_children=1
auto_aliases=no
tcp_accept_no_cl=yes
listen=udp:{host}:{port}
listen=tcp:{host}:{port}
{tls}
alias="example.test"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "sdpops.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "auth.so"
loadmodule "xhttp.so"
loadmodule "websocket.so"
loadmodule "nathelper.so"
modparam("usrloc", "db_mode", 0)
modparam("registrar", "use_path", 1)
modparam("registrar", "max_contacts", 2)
modparam("auth", "nonce_expire", {nonce_s})
modparam("auth", "algorithm", "{algorithm}")
modparam("rr", "enable_full_lr", 1)
modparam("nathelper|registrar", "received_avp", "$avp(received)")

request_route {{
  if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
  if (is_method("CANCEL")) {{ if (t_check_trans()) t_relay(); exit; }}
  if (nat_uac_test("64")) {{ # who comes by a WebSocket is found by it alone: browsers do not know their address
    force_rport();
    if (is_method("REGISTER")) fix_nated_register();
    else if (is_method("INVITE|UPDATE|SUBSCRIBE")) add_contact_alias();
  }}
  t_on_reply("ANSWER");
  if (has_totag()) {{
    if (loose_route()) {{ handle_ruri_alias(); t_relay(); exit; }}
    if (is_method("ACK") && t_check_trans()) {{ t_relay(); exit; }}
    sl_send_reply("404", "Not here");
    exit;
  }}
  if (is_method("OPTIONS") && uri == myself && $rU == $null) {{ sl_send_reply("200", "OK"); exit; }}
  if (is_method("REGISTER|INVITE") && $fU != "{free}" && !pv_auth_check("$fd", "{password}", "0", "1")) {{
{challenging}
    if (is_method("REGISTER")) www_challenge("$fd", "1"); else proxy_challenge("$fd", "1");
    exit;
  }}
  if (is_method("REGISTER")) {{ save("location"); exit; }}
  consume_credentials();
  record_route();
  append_hf("P-Asserted-Identity: <sip:$fU@example.test>\\r\\n");
{passing}
  if (!lookup("location")) {{ sl_send_reply("404", "Not Found"); exit; }}
  t_relay();
}}

onreply_route[ANSWER] {{
  if (nat_uac_test("64") && status =~ "[12][0-9][0-9]") add_contact_alias();
}}

event_route[xhttp:request] {{
  set_reply_close();
  set_reply_no_connect();
  if ($hu == "{path}" && $hdr(Upgrade) =~ "websocket") {{ ws_handle_handshake(); exit; }}
  xhttp_reply("404", "Not Found", "", "");
}}
"""


class Kamailio:
    """``tls``: certificate and key, for a port of its own. ``nonce_s``: how long a challenge holds; ``free``: a
    user who is not asked for a password. ``passing``: more of its script, for requests of calls that it
    forwards, as servers between telephones change them; ``challenging``: for those that it challenges."""

    def __init__(
        self, folder: Path, *, tls: tuple[Path, Path] | None = None, algorithm: str = "MD5", nonce_s: int = 300,
        free: str = "nobody", passing: str = "", challenging: str = "", host: str = "127.0.0.1",
    ) -> None:
        self.folder = folder
        self.host = host
        self.port = free_port()
        self.tls_port = free_port()
        self.log: list[str] = []
        self._tls = tls
        self._values: Mapping[str, object] = {
            "host": host, "port": self.port, "path": WEBSOCKET, "algorithm": algorithm, "nonce_s": nonce_s,
            "password": PASSWORD, "free": free, "passing": passing,
            "challenging": challenging}
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Until it listens."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tls = ""
        if self._tls is not None:
            certificate, key = self._tls
            tls = (f'enable_tls=yes\nlisten=tls:{self.host}:{self.tls_port}\nloadmodule "tls.so"\n'
                   f'modparam("tls", "certificate", "{certificate}")\nmodparam("tls", "private_key", "{key}")\n'
                   'modparam("tls", "tls_method", "TLSv1.2+")')
        config = self.folder / "kamailio.cfg"
        config.write_text(CONFIG.format(tls=tls, **self._values).lstrip())
        program = shutil.which("kamailio") or "/usr/sbin/kamailio"
        self._process = await asyncio.create_subprocess_exec(
            program, "-f", str(config), "-DD", "-E", "-m", "32", "-M", "4", "-Y", str(self.folder), "-w",
            str(self.folder), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, start_new_session=True)
        self._reader = asyncio.create_task(self._read(self._process))
        try:
            async with asyncio.timeout(START_S):
                while True:
                    with contextlib.suppress(OSError):
                        _, writer = await asyncio.open_connection(self.host, self.port)
                        writer.close()
                        return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError("Kamailio did not start:\n" + "".join(self.log[-20:])) from None

    async def stop(self) -> None:
        """As a crash would end it: all of its processes."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            await process.wait()
        if self._reader is not None:
            await self._reader

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            self.log.append(line.decode(errors="replace"))
            del self.log[:-300]


@asynccontextmanager
async def kamailio(folder: Path, **more: object) -> AsyncIterator[Kamailio]:
    made = Kamailio(folder, **more)  # type: ignore[arg-type]
    await made.start()
    try:
        yield made
    finally:
        await made.stop()
