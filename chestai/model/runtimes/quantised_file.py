"""Quantised networks as files in the lake, where every process that scores finds the one that was checked."""

from hashlib import sha256

from pydantic import BaseModel, ConfigDict

from chestai.errors import UserError
from chestai.lake.files import read_bytes
from chestai.lake.lake import Lake

FOLDER = "quantised"


class QuantisedFile(BaseModel):
    """The name of a file below `quantised/` in the lake, and its SHA-256."""

    model_config = ConfigDict(frozen=True)

    name: str
    sha256: str

    @classmethod
    def write(cls, lake: Lake, name: str, content: bytes) -> "QuantisedFile":
        """Writes a file, replacing an earlier one."""
        lake.write_bytes(content, FOLDER, name)
        return cls(name=name, sha256=sha256(content).hexdigest())

    def is_intact(self, lake: Lake) -> bool:
        """Returns whether the file is the one that was written."""
        try:
            self.read(lake)
        except UserError:
            return False
        return True

    def read(self, lake: Lake) -> bytes:
        """Reads the file.

        Raises:
            UserError: It is not there, or it is not the one that was written.
        """
        path = lake.uri(FOLDER, self.name)
        remedy = "take runtime.precision=fp32, or register the model anew"
        try:
            content = read_bytes(path)
        except OSError as error:
            raise UserError(f"{path}, the network in int8, cannot be read: {remedy}") from error
        if sha256(content).hexdigest() != self.sha256:
            raise UserError(f"{path} is not the network in int8 that was checked on val: {remedy}")
        return content
