"""What goes wrong with an archive, or with what it sends. No message names a patient."""


class ArchiveAway(Exception):
    """The archive could not be reached or is in trouble: try again later."""


class ArchiveRefuses(Exception):
    """The archive does not want this, or cannot be asked: trying again is no use."""


class NotAskedFor(Exception):
    """A film that the archive sent as our prior, and that nobody asked for."""
