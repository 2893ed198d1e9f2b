"""The one hash that says whether two contents are the same."""

import hashlib


def digest(content: bytes | str) -> str:
    """SHA-256 of bytes, or of a text in UTF-8, as 64 hexadecimal digits."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()
