"""Names from clients, which people read in lists and other systems store."""

import unicodedata

# Control, format and surrogate characters, and separators of lines and paragraphs. Some format characters (Cf) reverse
# the text around them, so that a name ending in `gpj.exe` is shown as one ending in `exe.jpg`.
HIDDEN_CATEGORIES = ("Cc", "Cf", "Cs", "Zl", "Zp")


def has_hidden_characters(name: str) -> bool:
    """Returns whether a name has characters that people cannot see."""
    return any(unicodedata.category(character) in HIDDEN_CATEGORIES for character in name)
