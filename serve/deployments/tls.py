"""Encryption of the endpoint, and who reaches it without.

Ray Serve 2.60 hands `ssl_ca_certs` to uvicorn and leaves uvicorn at asking for no client certificate, so there is no
key for that: clients are known by API keys and tokens. Where certificates of clients are wanted, a proxy asks for them.
"""

import ipaddress
import os
import socket
import ssl
from pathlib import Path

from chestai.config.schema import Config, Tls
from chestai.errors import UserError

PASSWORD = "CHESTAI_TLS_PASSWORD"  # environment variable: of the key file


def options(tls: Tls) -> dict[str, str]:
    """What Ray Serve's HTTP options need for https; nothing where no certificate is named.

    Raises:
        UserError: one of certificate and key is missing, or they cannot be used together.
    """
    if tls.certificate is None and tls.key is None:
        return {}
    if tls.certificate is None or tls.key is None:
        missing = "key" if tls.key is None else "certificate"
        raise UserError(f"serve.tls.{missing} is missing: certificate and key go together")
    certificate, key = (str(Path(file).expanduser().absolute()) for file in (tls.certificate, tls.key))
    for name, file in (("certificate", certificate), ("key", key)):
        try:
            Path(file).read_bytes()
        except OSError as error:
            raise UserError(f"serve.tls.{name}={file} cannot be read: {error.strerror}") from error
    password = os.environ.get(PASSWORD, "")
    try:
        # With a password, be it empty, OpenSSL asks nobody at a terminal.
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, password)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or "no PEM files"
        raise UserError(
            f"serve.tls: certificate {certificate} and key {key} cannot be used together ({reason}); "
            f"the password of an encrypted key is taken from {PASSWORD}"
        ) from error
    files = {"ssl_certfile": certificate, "ssl_keyfile": key}
    return {**files, "ssl_keyfile_password": password} if password else files


def check_exposure(config: Config) -> None:
    """Raises UserError where whoever reaches this machine could ask, and see what others asked."""
    if not config.auth.required and not _loopback(config.serve.host):
        raise UserError(
            f"serve.host={config.serve.host} is not loopback: keep auth.required=true, or serve.host=127.0.0.1"
        )


def warning(config: Config) -> str | None:
    """What whoever starts the endpoint should know of its network; None: nothing."""
    if config.serve.tls.certificate is not None or _loopback(config.serve.host):
        return None
    host = config.serve.host
    return f"serve.host={host}: images and keys cross the network unencrypted; name serve.tls, or have a TLS proxy"


def _loopback(host: str) -> bool:
    """Whether all addresses of a host are of this machine alone; one that is not known is not."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)
