"""A real coturn for tests, with an authority of its own for TURN over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import os
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.ports import free_port

__all__ = ["PASSWORD", "USERNAME", "Authority", "TurnServer"]

USERNAME: Final = "door"
PASSWORD: Final = "correct-horse-battery"
START_S: Final = 10.0


class Authority:
    """Signs certificates; ``file`` is its own."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False)
        own = (self._certificate(self._name, self._key.public_key())
               .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
               .add_extension(usage, critical=True)
               .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
               .sign(self._key, hashes.SHA256()))
        self.file = folder / f"{name}.crt"
        self.file.write_bytes(own.public_bytes(serialization.Encoding.PEM))

    def issue(self, address: str) -> tuple[Path, Path]:
        """Certificate and key of a server at an IP address."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        signed = (self._certificate(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "turn")]), key.public_key())
                  .add_extension(names, critical=False)
                  .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                                 critical=False)
                  .sign(self._key, hashes.SHA256()))
        certificate, private = self._folder / f"{address}.crt", self._folder / f"{address}.key"
        certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        private.write_bytes(key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        return certificate, private

    def _certificate(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key)
                .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
                .not_valid_after(now + datetime.timedelta(days=1)))


class TurnServer:
    """coturn at ``address`` on free ports: UDP and TCP on ``port``, TLS on ``tls_port``; login USERNAME, PASSWORD, or
    logins that end, made of ``secret``.

    It relays at ``relay``, or where it listens; ``lifetime_s``: of a relay, before it is asked for again."""

    def __init__(
        self, folder: Path, certificate: tuple[Path, Path], *, address: str = "10.99.0.1", relay: str = "",
        secret: str = "", lifetime_s: int = 600,
    ) -> None:
        self.address = address
        self.port, self.tls_port = free_port(), free_port()
        self._host = f"[{address}]" if ":" in address else address
        self._relay = relay or address
        self._login = (["--use-auth-secret", f"--static-auth-secret={secret}"] if secret else
                       ["--lt-cred-mech", f"--user={USERNAME}:{PASSWORD}"])
        self._lifetime_s = lifetime_s
        self._folder = folder
        self._certificate = certificate
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self.log: list[str] = []

    @property
    def udp(self) -> str:
        return f"turn:{self._host}:{self.port}"

    @property
    def tcp(self) -> str:
        return f"turn:{self._host}:{self.port}?transport=tcp"

    @property
    def tls(self) -> str:
        return f"turns:{self._host}:{self.tls_port}"

    @property
    def stun(self) -> str:
        return f"stun:{self._host}:{self.port}"

    async def __aenter__(self) -> TurnServer:
        certificate, key = self._certificate
        self._process = await asyncio.create_subprocess_exec(
            "setpriv", "--pdeathsig", "KILL", "turnserver", "-n", "--log-file=stdout", "--no-cli", "--no-dtls",
            f"--listening-ip={self.address}", f"--relay-ip={self._relay}", f"--listening-port={self.port}",
            f"--tls-listening-port={self.tls_port}", *self._login, "--realm=edgecall.test",
            f"--max-allocate-lifetime={self._lifetime_s}", f"--cert={certificate}", f"--pkey={key}", "--no-rfc5780",
            f"--userdb={self._folder / 'turn.db'}", f"--pidfile={self._folder / 'turn.pid'}", "--verbose",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env={**os.environ, "LC_ALL": "C"})
        self._reader = asyncio.create_task(self._read(self._process), name="turn log")
        async with asyncio.timeout(START_S):
            for port in (self.port, self.tls_port):
                await self._accepts(port)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """SIGKILL: what uses it finds out by itself. May be called twice."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        if self._reader is not None:
            await self._reader

    async def _accepts(self, port: int) -> None:
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(self.address, port)
                writer.close()
                await writer.wait_closed()
                return
            assert self._process is not None
            assert self._process.returncode is None, "".join(self.log)
            await asyncio.sleep(0.02)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            self.log.append(line.decode(errors="replace"))
