"""Tokens of an identity provider, valid and forged."""

import base64
import hashlib
import hmac
import json
from datetime import timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chestai.clock import now

SECRET = "0123456789abcdef0123456789abcdef"
ISSUER = "https://id.example.org"
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())


def claims(**more: Any) -> dict[str, Any]:
    ends = now() + timedelta(minutes=5)
    values = {"iss": ISSUER, "aud": "chestai", "sub": "rita", "exp": ends, "role": "reviewer", **more}
    return {name: value for name, value in values.items() if value is not None}


def public_jwk(key: Any, key_id: str | None, **more: str) -> dict[str, Any]:
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    entry = algorithm.to_jwk(key.public_key(), as_dict=True)
    return {**entry, **({} if key_id is None else {"kid": key_id}), **more}


def pem(key: Any) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def encode_unchecked(header: dict[str, Any], content: dict[str, Any], signature: bytes = b"") -> str:
    """Encodes a token with any header."""
    content = {**content, "exp": int(content["exp"].timestamp())}
    parts = [json.dumps(header).encode(), json.dumps(content).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def sign_hs256(header: dict[str, Any], key: bytes) -> str:
    """Signs a token with any key: PyJWT itself refuses to sign with a public key."""
    unsigned = encode_unchecked(header, claims()).rsplit(".", 1)[0]
    signature = hmac.new(key, unsigned.encode(), hashlib.sha256).digest()
    return f"{unsigned}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
