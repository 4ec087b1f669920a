"""What RAUC reads comes whole from a bad server, no faster than allowed, and only from where it may come."""

from __future__ import annotations

import datetime
import http.client
import ipaddress
import json
import select
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edgecall_image.origins import Origins
from edgecall_image.relay import PATIENCE_S, Bundle, Failed, Pace, Part, Proxy
from tests.support.bundle_server import BundleServer
from tests.support.loopback import ThreadedServer

IMAGE = Path(__file__).parents[2] / "image"
CONTENT = bytes(range(256)) * 400


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Pauses(threading.Event):
    """Where the relay would wait; time passes at once."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.waited: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.append(timeout or 0.0)
        self.clock.now += timeout or 0.0
        return self.is_set()


def bundle_of(server: BundleServer, *, url: str = "", origins: tuple[str, ...] = (), rate: int | None = None,
              trust: ssl.SSLContext | None = None) -> tuple[Bundle, Pauses]:
    clock = Clock()
    pauses = Pauses(clock)
    allowed = Origins((server.origin, *origins))
    bundle = Bundle(url or server.url, allowed, Pace(rate), trust, clock=clock, stopped=pauses)
    return bundle, pauses


def read(bundle: Bundle, first: int, last: int) -> bytes:
    part, *chunks = bundle.read(first, last)
    assert isinstance(part, Part)
    return b"".join(chunk for chunk in chunks if isinstance(chunk, bytes))


@pytest.fixture
def server() -> Iterator[BundleServer]:
    with BundleServer(CONTENT) as server:
        yield server


def test_a_range_is_what_the_file_has_there(server: BundleServer) -> None:
    bundle, _ = bundle_of(server)
    assert read(bundle, 0, 3) == CONTENT[:4]
    assert read(bundle, 50_001, 70_000) == CONTENT[50_001:70_001]
    part = next(bundle.read(0, 3))
    assert isinstance(part, Part)
    assert (part.total, part.headers["ETag"]) == (len(CONTENT), '"1"')
    bundle.close()


def test_a_range_past_the_end_ends_with_the_file(server: BundleServer) -> None:
    bundle, _ = bundle_of(server)
    assert read(bundle, len(CONTENT) - 10, len(CONTENT) + 5000) == CONTENT[-10:]
    bundle.close()


def test_one_connection_serves_many_ranges(server: BundleServer) -> None:
    bundle, _ = bundle_of(server)
    for at in range(0, 40_000, 4_000):
        assert read(bundle, at, at + 3_999) == CONTENT[at : at + 4_000]
    assert len(bundle._idle) == 1
    bundle.close()


def test_a_range_goes_on_where_the_line_broke_off(server: BundleServer) -> None:
    server.cut_after = 7_000
    bundle, pauses = bundle_of(server)
    assert read(bundle, 1_000, 60_999) == CONTENT[1_000:61_000]
    assert server.asked[:3] == ["bytes=1000-60999", "bytes=8000-60999", "bytes=15000-60999"]
    assert server.sent == 60_000
    assert set(pauses.waited) == {0.0}, "progress makes it patient anew"
    bundle.close()


def test_a_server_that_is_busy_is_asked_again_ever_more_rarely(server: BundleServer) -> None:
    bundle, pauses = bundle_of(server)
    assert read(bundle, 0, 3) == CONTENT[:4]
    server.fails = 7
    assert read(bundle, 4, 99) == CONTENT[4:100]
    assert pauses.waited == [0.0, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0]
    bundle.close()


def test_patience_ends_before_the_kernel_gives_the_block_device_up(server: BundleServer) -> None:
    bundle, pauses = bundle_of(server)
    assert read(bundle, 0, 3) == CONTENT[:4]
    server.fails = 1_000
    with pytest.raises(Failed) as caught:
        read(bundle, 4, 99)
    assert (caught.value.code, caught.value.again) == ("network", True)
    assert "503" in caught.value.message
    assert PATIENCE_S - 15 <= sum(pauses.waited) <= PATIENCE_S < 300
    asked = len(server.asked)
    with pytest.raises(Failed):
        read(bundle, 4, 99)
    assert len(server.asked) == asked, "what has failed is not asked again"
    bundle.close()


def test_nobody_there_is_told_soon() -> None:
    with BundleServer(CONTENT) as gone:
        pass
    bundle, pauses = bundle_of(gone)
    with pytest.raises(Failed) as caught:
        read(bundle, 0, 3)
    assert caught.value.code == "network"
    assert "Connection refused" in caught.value.message
    assert sum(pauses.waited) <= 15
    bundle.close()


@pytest.mark.parametrize("status", [403, 404, 410])
def test_what_will_not_change_is_asked_once(server: BundleServer, status: int) -> None:
    server.fails, server.fail_status = 1_000, status
    bundle, _ = bundle_of(server)
    with pytest.raises(Failed) as caught:
        read(bundle, 0, 3)
    assert (caught.value.code, caught.value.again, len(server.asked)) == ("network", False, 1)
    assert str(status) in caught.value.message
    bundle.close()


def test_a_server_without_ranges_is_named(server: BundleServer) -> None:
    server.ranges = False
    bundle, _ = bundle_of(server)
    with pytest.raises(Failed) as caught:
        read(bundle, 0, 3)
    assert caught.value.code == "noRange"
    bundle.close()


def test_a_bundle_that_is_replaced_meanwhile_is_not_mixed(server: BundleServer) -> None:
    bundle, _ = bundle_of(server)
    assert read(bundle, 0, 3) == CONTENT[:4]
    server.etag = '"2"'
    with pytest.raises(Failed) as caught:
        read(bundle, 4, 99)
    assert "replaced" in caught.value.message
    bundle.close()


def test_it_follows_to_where_updates_may_come_from_and_stays_there(server: BundleServer) -> None:
    with BundleServer(CONTENT, path="/elsewhere/it.raucb") as store:
        server.moved = store.url
        bundle, _ = bundle_of(server, origins=(store.origin + "elsewhere/",))
        assert read(bundle, 0, 3) == CONTENT[:4]
        assert read(bundle, 4, 99) == CONTENT[4:100]
        assert (len(server.asked), len(store.asked)) == (1, 2)
        store.fails, store.fail_status = 1, 403  # a signed address that has run out
        assert read(bundle, 100, 199) == CONTENT[100:200]
        assert len(server.asked) == 2
        bundle.close()


def test_it_follows_nowhere_else(server: BundleServer) -> None:
    with BundleServer(CONTENT) as other:
        server.moved = other.url
        bundle, _ = bundle_of(server)
        with pytest.raises(Failed) as caught:
            read(bundle, 0, 3)
        assert caught.value.code == "notAllowed"
        assert other.asked == []
        bundle.close()


def test_a_circle_of_redirections_ends(server: BundleServer) -> None:
    server.moved = server.url
    bundle, _ = bundle_of(server)
    with pytest.raises(Failed) as caught:
        read(bundle, 0, 3)
    assert caught.value.code == "network"
    bundle.close()


def test_bytes_are_due_at_the_rate_whoever_takes_them() -> None:
    clock = Clock()
    pace = Pace(10_000, clock)
    assert pace.owed_s(5_000) == 0.5
    assert pace.owed_s(5_000) == 1.0  # another connection, at the same moment
    clock.now = 4.0
    assert pace.owed_s(10_000) == 1.0, "what was not used is not saved up"
    pace.set(None)
    assert pace.owed_s(10**9) == 0.0
    pace.set(1_000)
    assert pace.owed_s(1_000) == 1.0


def test_a_new_rate_frees_who_waits_for_the_old_one() -> None:
    pace = Pace(1_024)
    waiting = threading.Thread(target=pace.take, args=(10_000_000,))
    waiting.start()
    pace.set(None)
    waiting.join(10)
    assert not waiting.is_alive()


# --- as the process that it is


class Relay:
    """Started as the service starts it."""

    def __init__(self, **task: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", "import sys\nfrom edgecall_image.relay import main\nmain([])"], cwd=IMAGE, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.tell(**task)
        self.first = self.hear()

    def tell(self, **document: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(document) + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, object]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else {}

    def get(self, first: int, last: int, url: str = "") -> tuple[int, bytes]:
        address = url or str(self.first["url"])
        request = urllib.request.Request(address, headers={"Range": f"bytes={first}-{last}"})  # noqa: S310 - loopback
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, b""

    def close(self) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        status = self.process.wait(10)
        self.process.stdout.close()
        return status


def test_the_process_serves_on_loopback_and_ends_with_its_task(server: BundleServer) -> None:
    relay = Relay(url=server.url, origins=[server.origin], ca=None, rate=None)
    assert str(relay.first["url"]).startswith("http://127.0.0.1:")
    assert relay.get(0, 3) == (206, CONTENT[:4])
    assert relay.get(100, 60_000) == (206, CONTENT[100:60_001])
    assert relay.close() == 0


def test_a_range_on_a_connection_that_is_kept_comes_at_once(server: BundleServer) -> None:
    """As RAUC asks. What waits until the head before it is acknowledged waits 40 ms: Linux delays that."""
    relay = Relay(url=server.url, origins=[server.origin], ca=None, rate=None)
    where, took = urlsplit(str(relay.first["url"])), []
    with closing(http.client.HTTPConnection(where.netloc, timeout=10)) as connection:
        for at in range(0, 80_000, 2_000):
            begun = time.monotonic()
            connection.request("GET", where.path, headers={"Range": f"bytes={at}-{at + 1_999}"})
            assert connection.getresponse().read() == CONTENT[at : at + 2_000]
            took.append(time.monotonic() - begun)
    relay.close()
    assert min(took[20:]) < 0.03, "the first ones are acknowledged at once"


def test_whoever_does_not_know_the_address_gets_nothing(server: BundleServer) -> None:
    relay = Relay(url=server.url, origins=[server.origin], ca=None, rate=None)
    port = str(relay.first["url"]).split("/")[2]
    assert relay.get(0, 3, f"http://{port}/good.raucb")[0] == 404
    assert server.asked == []
    relay.close()


def test_the_cause_is_told_and_rauc_is_not_kept_waiting(server: BundleServer) -> None:
    server.ranges = False
    relay = Relay(url=server.url, origins=[server.origin], ca=None, rate=None)
    assert relay.get(0, 3)[0] == 404
    assert relay.hear()["failed"] == "noRange"
    assert relay.get(0, 3)[0] == 404
    assert len(server.asked) == 1
    relay.close()


def test_the_rate_holds_and_can_be_lifted_while_bytes_flow(server: BundleServer) -> None:
    relay = Relay(url=server.url, origins=[server.origin], ca=None, rate=50_000)
    began = time.monotonic()
    assert relay.get(0, 29_999)[1] == CONTENT[:30_000]
    assert relay.get(30_000, 49_999)[1] == CONTENT[30_000:50_000]
    assert time.monotonic() - began > 0.6, "50 kB take a second, but for the last of them"
    relay.tell(rate=1_024)
    lifted = threading.Timer(0.3, relay.tell, kwargs={"rate": None})
    lifted.start()
    began = time.monotonic()
    assert relay.get(0, 99_999)[1] == CONTENT[:100_000]
    assert time.monotonic() - began < 15, "at the old rate it would take 98 s"
    lifted.join()
    relay.close()


def _tls(folder: Path) -> tuple[ssl.SSLContext, str]:
    """A server's context for 127.0.0.1, and the PEM of who signed its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "updates")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256()))
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (folder / "tls.pem").write_bytes(pem + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.pem")
    return context, pem.decode()


def test_an_authority_of_the_operators_own_is_trusted_and_no_other(tmp_path: Path) -> None:
    context, pem = _tls(tmp_path)
    with BundleServer(CONTENT, tls=context) as server:
        relay = Relay(url=server.url, origins=[server.origin], ca=pem, rate=None)
        assert relay.get(0, 3) == (206, CONTENT[:4])
        relay.close()
        bundle, _ = bundle_of(server, trust=ssl.create_default_context())
        with pytest.raises(Failed) as caught:
            read(bundle, 0, 3)
        assert caught.value.code == "network"
        assert "update.ca_file" in caught.value.message
        bundle.close()


class Tunnel(socketserver.StreamRequestHandler):
    """A proxy of a site: CONNECT, with a login."""

    def handle(self) -> None:
        asked = self.rfile.readline().decode().split()
        headers = dict(line.decode().rstrip().split(": ", 1) for line in iter(self.rfile.readline, b"\r\n"))
        self.server.asked.append((asked[0], asked[1], headers.get("Proxy-Authorization")))  # type: ignore[attr-defined]
        host, _, port = asked[1].rpartition(":")
        with socket.create_connection((host, int(port)), 10) as there:
            self.wfile.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            pairs = {self.connection: there, there: self.connection}
            while True:
                for ready in select.select(list(pairs), [], [], 10)[0]:
                    content = ready.recv(65_536)
                    if not content:
                        return
                    pairs[ready].sendall(content)


def test_the_proxy_of_a_site_is_used(tmp_path: Path) -> None:
    context, pem = _tls(tmp_path)
    proxy = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Tunnel)
    proxy.asked = []  # type: ignore[attr-defined]
    with BundleServer(CONTENT, tls=context) as server, ThreadedServer(proxy):
        address = f"http://edge:s%3Acret@127.0.0.1:{proxy.server_address[1]}"
        bundle, _ = bundle_of(server, trust=ssl.create_default_context(cadata=pem))
        bundle.proxy = Proxy.of({"https_proxy": address})
        assert bundle.proxy is not None
        assert "cret" not in repr(bundle.proxy)
        assert read(bundle, 0, 3) == CONTENT[:4]
        assert read(bundle, 4, 999) == CONTENT[4:1000]
        bundle.close()
        where = server.origin.split("/")[2]
        assert proxy.asked == [("CONNECT", where, "Basic ZWRnZTpzOmNyZXQ=")]  # type: ignore[attr-defined]
    assert Proxy.of({}) is None
    assert Proxy.of({"https_proxy": "socks5://127.0.0.1:1"}) is None
    assert Proxy.of({"https_proxy": "http://[::1"}) is None


def test_an_authority_that_is_none_is_told(server: BundleServer) -> None:
    relay = Relay(url="https://127.0.0.1:1/x", origins=["https://127.0.0.1:1/"], ca="nothing", rate=None)
    assert relay.first["failed"] == "failed"
    assert "ca_file" in str(relay.first["message"])
    assert relay.close() == 1
