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

MAX_AGE_S = 600.0  # of a key set
MIN_REFRESH_S = 30.0  # between two requests, whatever keys the tokens name
TIMEOUT_S = 5.0
MAX_BYTES = 1 << 20
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
MIN_RSA_BITS = 2048  # RFC 7518, 3.3

KeyIndex = dict[str | None, list[tuple[str, Any]]]  # key ID -> (algorithm, key)


class KeySet:
    """Keys by ID. They are read again when they are old, or when a token names an unknown one."""

    def __init__(self, location: str) -> None:
        """
        Raises:
            UserError: The location cannot be read, holds no key for RS256 or ES256, or is an http URL of another
                machine.
        """
        if urlsplit(location).scheme != "" and not _is_secure(location):
            raise UserError(f"auth.jwt.jwks={location}: name a file or an https URL")
        self._location, self._lock = location, threading.Lock()
        try:
            self._keys = self._read()
        except (OSError, ValueError) as error:
            raise UserError(f"auth.jwt.jwks={location} cannot be read: {error}") from error
        self._read_at = time.monotonic()

    def find(self, algorithm: object, key_id: object) -> tuple[str, Any] | None:
        """Returns the key with this ID for the algorithm; without an ID, the only key for it."""
        self._refresh(key_id)
        if key_id is None:
            matching = [key for keys in self._keys.values() for key in keys if key[0] == algorithm]
            return matching[0] if len(matching) == 1 else None
        keys = self._keys.get(key_id, []) if isinstance(key_id, str) else []
        return next((key for key in keys if key[0] == algorithm), None)

    def _refresh(self, key_id: object) -> None:
        with self._lock:
            age = time.monotonic() - self._read_at
            is_known = key_id is None or key_id in self._keys
            if age < MIN_REFRESH_S or (age < MAX_AGE_S and is_known):
                return
            self._read_at = time.monotonic()
        try:
            self._keys = self._read()
        except (OSError, ValueError) as error:  # the provider is down: the old keys stay valid
            log.warning("auth.jwt.jwks=%s cannot be read (%s)", self._location, type(error).__name__)

    def _read(self) -> KeyIndex:
        if urlsplit(self._location).scheme == "":
            text = Path(self._location).expanduser().read_bytes()
        else:
            with urllib.request.urlopen(self._location, timeout=TIMEOUT_S) as response:
                if not _is_secure(response.geturl()):
                    raise ValueError("it redirects to a place without https")
                text = response.read(MAX_BYTES)
        content = json.loads(text)
        entries = content.get("keys") if isinstance(content, Mapping) else None
        index: KeyIndex = {}
        for entry in entries if isinstance(entries, list) else []:
            if (key := _parse_key(entry)) is not None:
                index.setdefault(entry.get("kid"), []).append(key)
        if not index:
            raise ValueError(f"it holds no key for RS256 ({MIN_RSA_BITS} bits or more) or ES256")
        return index


def _is_secure(url: str) -> bool:
    """Returns whether nobody on the network can alter the response."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)


def _parse_key(entry: object) -> tuple[str, Any] | None:
    """Returns the algorithm and key of an entry; None if it is for another use, or an RSA key that is too short."""
    if not isinstance(entry, Mapping) or entry.get("use", "sig") != "sig":
        return None
    kind = (entry.get("kty"), entry.get("crv"))
    algorithm = "RS256" if kind[0] == "RSA" else "ES256" if kind == ("EC", "P-256") else None
    if algorithm is None or entry.get("alg", algorithm) != algorithm:
        return None
    try:
        key = jwt.PyJWK(dict(entry), algorithm).key
    except jwt.PyJWTError:
        return None
    return None if algorithm == "RS256" and key.key_size < MIN_RSA_BITS else (algorithm, key)
