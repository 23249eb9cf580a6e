"""Which patients a model learnt from, carried with its weights as salted hashes.

So that a model that comes from elsewhere is not measured on patients it has seen. A hash is a pseudonym, not anonymity:
who holds a bundle and a list of candidates can test each of them, because the salt lies beside the hashes. It keeps
patient IDs out of plain sight, nothing more; treat the file as you treat the IDs.
"""

import hashlib
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Role = Literal["train", "val"]

HASH_BYTES = 8  # of a million patients, two share a hash with a probability of 3e-8
END = "end"

SALT = re.compile(r"[!-~]{1,64}")  # printable ASCII: one word of the file, and no longer than a key of blake2b
HASH = re.compile(rf"[0-9a-f]{{{2 * HASH_BYTES}}}")


def patient_hash(source: str, patient_id: str) -> str:
    """A patient's name across sources: another hospital's patient 1 is somebody else."""
    return f"{source}:{patient_id}"


@dataclass(frozen=True)
class SeenPatients:
    """The patients of one training.

    Attributes:
        salt: keys the hashes (blake2b, Aumasson et al. 2013); 1 to 64 printable ASCII characters without spaces.
        train: hashes of those whose images moved the weights, 16 hexadecimal digits each.
        val: hashes of those that only chose the epoch, the calibration and the thresholds.

    Raises:
        ValueError: the salt or a hash is malformed, or a patient is in both sets.
    """

    salt: str
    train: frozenset[str]
    val: frozenset[str]

    def __post_init__(self) -> None:
        _check(self.salt)
        for one in self.train | self.val:
            if not HASH.fullmatch(one):
                raise ValueError(f"{one!r} must be a hash of {2 * HASH_BYTES} hexadecimal digits")
        if both := self.train & self.val:
            raise ValueError(f"{len(both)} patients are in train and in val")

    @staticmethod
    def of(train: Iterable[str], val: Iterable[str], salt: str | None = None) -> "SeenPatients":
        """Hash the patients of a training.

        Args:
            train, val: patients by `key`, each as often as you like.
            salt: a random one where None, so that no two trainings' hashes can be compared with one another.

        Raises:
            ValueError: the salt is malformed, or a patient is in both.
        """
        salt = secrets.token_hex(16) if salt is None else salt
        _check(salt)
        return SeenPatients(salt, frozenset(_hashes(salt, train)), frozenset(_hashes(salt, val)))

    def role(self, key: str) -> Role | None:
        """What a patient was in this training; None where the training did not see them."""
        return self._role(_hashes(self.salt, [key])[0])

    def _role(self, hashed: str) -> Role | None:
        return "train" if hashed in self.train else "val" if hashed in self.val else None


def overlap(seen: Sequence[SeenPatients], keys: Iterable[str]) -> dict[str, Role]:
    """Those of the patients that any of the trainings saw; who was in train once and in val once is `train`."""
    asked = list(keys)
    found: dict[str, Role] = {}
    for one in seen:
        for patient, hashed in zip(asked, _hashes(one.salt, asked), strict=True):
            role = one._role(hashed)
            if role is not None and found.get(patient) != "train":
                found[patient] = role
    return found


def to_text(seen: Sequence[SeenPatients]) -> str:
    """Plain text, one training after another: a line `salt SALT`, then sorted lines `train HASH` and `val HASH`.

    The last line is `end`, so that a file that was cut off cannot pass for a shorter list.
    """
    lines: list[str] = []
    for one in seen:
        lines += [f"salt {one.salt}"]
        lines += [f"train {hashed}" for hashed in sorted(one.train)]
        lines += [f"val {hashed}" for hashed in sorted(one.val)]
    return "\n".join([*lines, END, ""])


def from_text(text: str) -> tuple[SeenPatients, ...]:
    """The inverse of `to_text`.

    Raises:
        ValueError: a line is none of these, or the text was cut off.
    """
    lines = text.splitlines()
    if not lines or lines[-1] != END:
        raise ValueError(f"its last line is not {END!r}: it was cut off")
    trainings: list[tuple[str, dict[str, set[str]]]] = []
    for number, line in enumerate(lines[:-1], start=1):
        what, _, value = line.partition(" ")
        if what == "salt":
            trainings.append((value, {"train": set(), "val": set()}))
        elif what in ("train", "val") and trainings:
            trainings[-1][1][what].add(value)
        else:
            raise ValueError(f"line {number} is no list of patients: {line[:60]!r}")
    return tuple(SeenPatients(salt, frozenset(sets["train"]), frozenset(sets["val"])) for salt, sets in trainings)


def _check(salt: str) -> None:
    if not SALT.fullmatch(salt):
        raise ValueError(f"salt {salt!r} must be 1 to 64 printable ASCII characters without spaces")


def _hashes(salt: str, keys: Iterable[str]) -> list[str]:
    """A hash for each key, in order."""
    empty = hashlib.blake2b(key=salt.encode(), digest_size=HASH_BYTES)
    hashes: list[str] = []
    for one in keys:
        hasher = empty.copy()
        hasher.update(one.encode())
        hashes.append(hasher.hexdigest())
    return hashes
