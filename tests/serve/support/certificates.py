"""Self-signed TLS certificates."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from chestai.config.schema import Tls
from chestai.config.types import Section

S = TypeVar("S", bound=Section)
PEM = serialization.Encoding.PEM


def create_certificate(folder: Path, name: str, password: str = "", is_rsa: bool = False) -> Tls:
    """Creates a self-signed certificate for 127.0.0.1 and its key, ECDSA or RSA; a password encrypts the key."""
    folder.mkdir(exist_ok=True)
    key = rsa.generate_private_key(65537, 2048) if is_rsa else ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encryption = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(PEM))
    (folder / f"{name}.key").write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, encryption))
    return Tls(certificate=str(folder / f"{name}.pem"), key=str(folder / f"{name}.key"))


def copy_with(section: S, **update: Any) -> S:
    """Copies a section of the config with other values."""
    return section.model_copy(update=update)
