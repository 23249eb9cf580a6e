"""UIDs, numbers and status codes of storage commitment (PS3.4 Annex J, PS3.7 Annex C)."""

COMMITMENT = "1.2.840.10008.1.20.1"  # Storage Commitment Push Model, its SOP class and well-known instance
INSTANCE = "1.2.840.10008.1.20.1.1"
REQUEST, ALL_SAFE, SOME_MISSING = 1, 1, 2  # action and event types
NO_SUCH_OBJECT = 0x0112  # failure reason
SUCCESS, FAILED, INVALID, UNKNOWN_CALLER = 0x0000, 0x0110, 0x0115, 0x0124
