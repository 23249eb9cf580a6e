"""The public keys of an identity provider (JWKS, RFC 7517), from a file or an https URL."""

import json
import logging
import threading
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt

from chestai.errors import UserError

log = logging.getLogger("chestai.auth")

RENEW_S = 600.0  # how old a key set may be
PAUSE_S = 30.0  # between two looks, whatever keys tokens ask for
TIMEOUT_S = 5.0
MOST_BYTES = 1 << 20
LOOPBACK = {"localhost", "127.0.0.1", "::1"}

Found = dict[str | None, list[tuple[str, Any]]]


class KeySet:
    """The keys by their ID, read again when they are old, or when a token names one that is not there."""

    def __init__(self, place: str) -> None:
        """
        Raises:
            UserError: it cannot be read, holds no key for RS256 or ES256, or is an http URL of another machine.
        """
        if urlsplit(place).scheme != "" and not _trusted(place):
            raise UserError(f"auth.jwt.jwks={place}: name a file or an https URL")
        self._place, self._lock = place, threading.Lock()
        try:
            self._keys = self._read()
        except (OSError, ValueError) as error:
            raise UserError(f"auth.jwt.jwks={place} cannot be read: {error}") from error
        self._read_at = time.monotonic()

    def find(self, algorithm: object, key_id: object) -> tuple[str, Any] | None:
        """The key with this ID for this algorithm; without an ID, the only one there is for it."""
        self._renew(key_id)
        if key_id is None:
            fitting = [key for keys in self._keys.values() for key in keys if key[0] == algorithm]
            return fitting[0] if len(fitting) == 1 else None
        named = self._keys.get(key_id, []) if isinstance(key_id, str) else []
        return next((key for key in named if key[0] == algorithm), None)

    def _renew(self, key_id: object) -> None:
        with self._lock:
            age = time.monotonic() - self._read_at
            known = key_id is None or key_id in self._keys
            if age < PAUSE_S or (age < RENEW_S and known):
                return
            self._read_at = time.monotonic()
        try:
            self._keys = self._read()
        except (OSError, ValueError) as error:  # the provider is away: those that are there stay good
            log.warning("auth.jwt.jwks=%s cannot be read (%s)", self._place, type(error).__name__)

    def _read(self) -> Found:
        if urlsplit(self._place).scheme == "":
            text = Path(self._place).expanduser().read_bytes()
        else:
            with urllib.request.urlopen(self._place, timeout=TIMEOUT_S) as answer:
                if not _trusted(answer.geturl()):
                    raise ValueError("it redirects to a place without https")
                text = answer.read(MOST_BYTES)
        content = json.loads(text)
        listed = content.get("keys") if isinstance(content, Mapping) else None
        found: Found = {}
        for one in listed if isinstance(listed, list) else []:
            if (key := _public(one)) is not None:
                found.setdefault(one.get("kid"), []).append(key)
        if not found:
            raise ValueError("it holds no key for RS256 or ES256")
        return found


def _trusted(url: str) -> bool:
    """Whether nobody between here and there can put keys of his own into the answer."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)


def _public(one: object) -> tuple[str, Any] | None:
    """The algorithm and key of an entry, None where it is for something else; a shared secret is no public key."""
    if not isinstance(one, Mapping) or one.get("use", "sig") != "sig":
        return None
    kind = (one.get("kty"), one.get("crv"))
    algorithm = "RS256" if kind[0] == "RSA" else "ES256" if kind == ("EC", "P-256") else None
    if algorithm is None or one.get("alg", algorithm) != algorithm:
        return None
    try:
        return algorithm, jwt.PyJWK(dict(one), algorithm).key
    except jwt.PyJWTError:
        return None
