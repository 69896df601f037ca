"""How mailboxes are compared: two spellings of one address are one."""

from unicodedata import normalize


def key_of_email(email: str) -> str:
    """An address as addresses are compared."""
    return normalize("NFKC", email).casefold()
