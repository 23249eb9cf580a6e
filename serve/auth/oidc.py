"""Tokens (JWT) of an identity provider, as OpenID Connect has them.

The algorithm is decided by the key, never by the token: a shared secret is for HS256 alone, an RSA key for RS256, a
P-256 key for ES256 (RFC 8725). So `none`, and a public key passed off as a secret, come to nothing. Keys that a token
brings along (`jwk`, `jku`, `x5u`) are not looked at.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt

from chestai.config.schema import Jwt
from chestai.errors import UserError
from serve.auth.jwks import KeySet
from serve.auth.permissions import ROLES, Principal, Role

LEEWAY_S = 30  # between the clocks of the provider and of this machine
SECRET_BYTES = 32  # of HS256, RFC 7518
NAME_MOST = 190


class OidcVerifier:
    """Tells whose a token is."""

    def __init__(self, settings: Jwt) -> None:
        """
        Raises:
            UserError: a file cannot be read, the secret is too short, or the key set is none.
        """
        self._settings = settings
        self._secret = None if settings.secret is None else _secret(settings.secret)
        self._keys = None if settings.jwks is None else KeySet(settings.jwks)

    def principal(self, token: str) -> Principal | None:
        """Whose a token is; None where it is not good: signature, issuer, audience, time, role.

        The name is `oidc:` and the claim `sub`, so that no token can pass for a user of an API key.
        """
        try:
            header = jwt.get_unverified_header(token)
            key = self._key(header)
            if key is None:
                return None
            claims = jwt.decode(
                token,
                key[1],
                algorithms=[key[0]],
                issuer=self._settings.issuer,
                audience=self._settings.audience,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (jwt.InvalidTokenError, ValueError, TypeError, RecursionError):
            return None
        role, name = _role(claims, self._settings.role_claim), claims["sub"]
        if role is None or not name or len(name) > NAME_MOST or not name.isprintable():
            return None
        return Principal(f"oidc:{name}", role)

    def _key(self, header: Mapping[str, Any]) -> tuple[str, Any] | None:
        """The algorithm and key that a token must have been signed with."""
        if header.get("alg") == "HS256":
            return None if self._secret is None else ("HS256", self._secret)
        if self._keys is None:
            return None
        return self._keys.find(header.get("alg"), header.get("kid"))


def _role(claims: Mapping[str, Any], where: str) -> Role | None:
    """The greatest role that a claim names; claims may have dots in their names, as URLs do."""
    value: Any = claims.get(where)
    if value is None:
        value = claims
        for part in where.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    named = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return next((role for role in reversed(ROLES) if role in named), None)


def _secret(file: str) -> bytes:
    try:
        secret = Path(file).expanduser().read_bytes().strip()
    except OSError as error:
        raise UserError(f"auth.jwt.secret={file} cannot be read: {error.strerror}") from error
    if len(secret) < SECRET_BYTES:
        raise UserError(f"auth.jwt.secret={file} has {len(secret)} bytes: HS256 needs {SECRET_BYTES} or more")
    return secret
