"""HTTPS, and checks of who can reach the endpoint without it.

There is no setting for client certificates: Ray Serve 2.60 passes `ssl_ca_certs` to uvicorn, but uvicorn then still
asks for none. Clients authenticate with API keys and tokens; a proxy can require certificates.
"""

import ipaddress
import os
import socket
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from chestai.config.schema import Config, Tls
from chestai.errors import UserError

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2: forward secrecy, and no CBC; TLS 1.3 has nothing else
PASSWORD_VARIABLE = "CHESTAI_TLS_PASSWORD"  # environment variable with the password of the key file


def https_options(tls: Tls) -> dict[str, str]:
    """Returns the HTTPS options of Ray Serve and uvicorn; none if no certificate is configured.

    Raises:
        UserError: Certificate or key is missing, or they cannot be used together.
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
    password = os.environ.get(PASSWORD_VARIABLE, "")
    try:
        # With a password, even an empty one, OpenSSL does not prompt for one.
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, password)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or "no PEM files"
        raise UserError(
            f"serve.tls: certificate {certificate} and key {key} cannot be used together ({reason}); "
            f"the password of an encrypted key is read from {PASSWORD_VARIABLE}"
        ) from error
    files = {"ssl_certfile": certificate, "ssl_keyfile": key}
    return {**files, "ssl_keyfile_password": password} if password else files


def check_proxy_certificate(tls: Tls) -> None:
    """Refuses a certificate with which Ray Serve's proxies would agree to static RSA; they take no list of ciphers.

    Raises:
        UserError: The certificate is for an RSA key.
    """
    if tls.certificate is None:
        return
    certificate = Path(tls.certificate).expanduser()
    if isinstance(x509.load_pem_x509_certificate(certificate.read_bytes()).public_key(), rsa.RSAPublicKey):
        raise UserError(
            f"serve.tls.certificate={certificate} is for an RSA key, with which Ray Serve's proxies also offer ciphers "
            "without forward secrecy: use an ECDSA certificate, serve.max_replicas=1, or a TLS proxy"
        )


def check_exposure(config: Config) -> None:
    """Raises UserError if other machines could reach the endpoint without authentication."""
    if not config.auth.required and not _is_loopback(config.serve.host):
        raise UserError(
            f"serve.host={config.serve.host} is not loopback: keep auth.required=true, or serve.host=127.0.0.1"
        )


def network_warning(config: Config) -> str | None:
    """Returns a warning if clients on other machines would connect without encryption."""
    if config.serve.tls.certificate is not None or _is_loopback(config.serve.host):
        return None
    host = config.serve.host
    return f"serve.host={host}: images and keys cross the network unencrypted; set serve.tls, or use a TLS proxy"


def _is_loopback(host: str) -> bool:
    """Returns whether all addresses of a host are loopback; False for an unknown host."""
    try:
        addresses = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in addresses)
