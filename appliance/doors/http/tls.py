"""The certificate of a listener that is reachable from outside: the owner's own, or a self-signed one."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from appliance.durable import replace_file
from appliance.errors import SettingsError
from appliance.settings import HttpSettings

if TYPE_CHECKING:
    from cryptography import x509

__all__ = ["server_context"]

_LIFE: Final = datetime.timedelta(days=825)
"""Longest life that browsers and Apple's systems accept of a certificate trusted by hand."""

_RENEW: Final = datetime.timedelta(days=30)


def server_context(http: HttpSettings, secrets_dir: Path) -> tuple[ssl.SSLContext, str]:
    """TLS 1.2 or newer, and the certificate's SHA-256 fingerprint (``AB:CD:…``). Blocking: call it off the loop.

    Raises SettingsError when the configured files cannot be used. Without configured files a self-signed
    certificate is kept in ``secrets_dir`` and renewed 30 days before its end.
    """
    own = bool(http.cert_file or http.key_file)
    if own and not (http.cert_file and http.key_file):
        raise SettingsError("settings", ["http.cert_file and http.key_file belong together: set both or none"])
    cert, key = Path(http.cert_file), Path(http.key_file)
    if not own:
        cert, key = secrets_dir / "http-cert.pem", secrets_dir / "http-key.pem"
        _keep_self_signed(cert, key, [http.listen, *http.names])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key)
        first = ssl.PEM_cert_to_DER_cert(_first_block(cert.read_text("ascii")))
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise SettingsError("settings", [f"http.cert_file {cert} with key {key} cannot be used: {error}"]) from error
    digest = hashlib.sha256(first).hexdigest().upper()
    return context, ":".join(digest[i:i + 2] for i in range(0, len(digest), 2))


def _first_block(pem: str) -> str:
    start, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    body = pem[pem.index(start):]
    return body[:body.index(end) + len(end)] + "\n"


def _keep_self_signed(cert: Path, key: Path, names: Sequence[str]) -> None:
    from cryptography import x509

    if cert.exists() and key.exists():
        old = x509.load_pem_x509_certificate(cert.read_bytes())
        if old.not_valid_after_utc - _RENEW > datetime.datetime.now(datetime.UTC):
            return
    _make_self_signed(cert, key, names)


def _make_self_signed(cert: Path, key: Path, names: Sequence[str]) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    hostname = socket.gethostname()
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:64])])
    now = datetime.datetime.now(datetime.UTC)
    wanted = dict.fromkeys([hostname, f"{hostname.partition('.')[0]}.local", "localhost", "127.0.0.1", "::1", *names])
    built = (
        x509.CertificateBuilder()
        .subject_name(subject).issuer_name(subject).public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        # A board without a battery-backed clock may think it is 1970: a day of grace is for the peers' clocks.
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + _LIFE)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in wanted]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(private, hashes.SHA256())
    )
    replace_file(key, private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                      serialization.NoEncryption()))
    replace_file(cert, built.public_bytes(serialization.Encoding.PEM))


def _general(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
