"""Where an appliance fetches its bundles: HTTPS with byte ranges, counted; and what servers do wrong."""

from __future__ import annotations

import contextlib
import re
import ssl
import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

__all__ = ["AUTHORITY", "CERTIFICATE", "PORT", "Served", "Server", "make_authority"]

WHOLE: Final = "/whole/"
"""Below it no request gets a part: ``/whole/NAME`` is NAME from a server without ranges."""
PORT: Final = 8443
"""Always this one, since the appliance's settings name it; each server has a network of its own."""
VALID: Final = timedelta(days=2)
AUTHORITY, CERTIFICATE = "ca.pem", "server.pem"


def make_authority(folder: Path, address: str, now: datetime) -> None:
    """Writes what the appliance has to believe (AUTHORITY), and for the server at ``address`` the key and certificate
    that it signed (CERTIFICATE)."""
    key, name = ec.generate_private_key(ec.SECP256R1()), _name("Edgecall image tests")
    begin, end = now - VALID, now + VALID
    signs = x509.KeyUsage(digital_signature=False, content_commitment=False, key_encipherment=False, crl_sign=True,
                          data_encipherment=False, key_agreement=False, key_cert_sign=True, encipher_only=False,
                          decipher_only=False)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    authority = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), begin, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(signs, critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, SHA256()))
    server = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder(name, _name(address), server.public_key(), x509.random_serial_number(), begin, end)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, SHA256()))
    (folder / AUTHORITY).write_bytes(authority.public_bytes(Encoding.PEM))
    (folder / CERTIFICATE).write_bytes(
        server.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) +
        certificate.public_bytes(Encoding.PEM))


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


@dataclass
class Served:
    """What the clients have had."""

    requests: int = 0
    octets: int = 0
    seen: list[str] = field(default_factory=list)
    """Path and range of each request, the last thousand."""


class Server:
    """The files of a folder, at one address: ``with Server(folder, address, certificate) as server``."""

    def __init__(self, folder: Path, address: str, certificate: Path) -> None:
        self.folder = folder
        self.served = Served()
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer((address, PORT), type("Handler", (_Handler,), {"server_of": self}))
        self._http.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._http.serve_forever, name="bundles", daemon=True)
        self.origin = f"https://{address}:{PORT}/"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def url(self, bundle: Path, *, ranges: bool = True) -> str:
        """Of a bundle, which the folder gets by its name."""
        with contextlib.suppress(FileExistsError):
            (self.folder / bundle.name).symlink_to(bundle)
        return f"{self.origin}{'' if ranges else WHOLE[1:]}{bundle.name}"

    def take_counts(self) -> Served:
        """Since the last time."""
        with self._lock:
            served, self.served = self.served, Served()
        return served

    def count(self, request: str, octets: int) -> None:
        with self._lock:
            self.served.requests += bool(request)
            self.served.octets += octets
            if request:
                self.served.seen = [*self.served.seen[-999:], request]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60.0
    disable_nagle_algorithm = True  # or the end of each range waits until RAUC acknowledges its head: 40 ms
    server_of: Server

    def do_HEAD(self) -> None:
        self._answer(send=False)

    def do_GET(self) -> None:
        self._answer(send=True)

    def _answer(self, *, send: bool) -> None:
        wanted = self.headers.get("Range", "")
        self.server_of.count(f"{self.path} {wanted}".strip(), 0)
        path = self.server_of.folder / Path(self.path).name
        if not path.is_file():
            self.send_error(404)
            return
        size = path.stat().st_size
        begin, end = 0, size
        part = None if self.path.startswith(WHOLE) else re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
        if part is not None:
            begin, end = int(part[1]), min(size, int(part[2]) + 1) if part[2] else size
            if begin >= end:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{size}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        self.send_response(206 if part else 200)
        if part is not None:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
        if not self.path.startswith(WHOLE):
            self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - begin))
        self.end_headers()
        if send:
            self._send(path, begin, end)

    def _send(self, path: Path, begin: int, end: int) -> None:
        with path.open("rb") as file, contextlib.suppress(OSError):  # a client that has gone is no fault
            file.seek(begin)
            while begin < end:
                part = file.read(min(1 << 16, end - begin))
                self.wfile.write(part)
                begin += len(part)
                self.server_of.count("", len(part))

    def log_message(self, *_: object) -> None:
        pass
