"""Keyed hashes that stand for patient IDs and accession numbers in the database: searchable, and readable by nobody.

HMAC-SHA-256 (RFC 2104): without the key, nobody can try all IDs of a hospital until one fits.
"""

import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

from chestai.config.schema import Config
from chestai.errors import UserError
from serve.db.store import state_folder

KEY_BYTES = 32
PATIENT, ACCESSION = "patient", "accession"  # kinds of IDs


class Pseudonyms:
    """Makes the hashes with one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def make(self, kind: str, value: str) -> str | None:
        """The hash of an ID, as hex; None of an empty one. `kind`: the same ID of another kind has another hash."""
        return hmac.digest(self._key, f"{kind}\0{value}".encode(), "sha256").hex() if value else None


def load_pseudonyms(config: Config) -> Pseudonyms:
    """Reads the key from `state.pseudonym_key`, or from a file beside the state, which is made if it is not there.

    Raises:
        UserError: The file cannot be used.
    """
    file = config.state.pseudonym_key
    path = state_folder(config) / "pseudonym.key" if file is None else Path(file).expanduser()
    if file is None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError), open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as new:
            new.write(secrets.token_hex(KEY_BYTES).encode())
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise UserError(f"state.pseudonym_key={path} cannot be read: {error.strerror}") from error
    if len(key) < KEY_BYTES:
        raise UserError(f"state.pseudonym_key={path} has {len(key)} bytes: {KEY_BYTES} or more are needed")
    return Pseudonyms(key)
