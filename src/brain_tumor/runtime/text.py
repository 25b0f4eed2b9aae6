"""Texts from files, as a message or a table can hold them."""

from typing import TypeGuard

QUOTED_CHARACTERS = 60


def is_text(value: object) -> TypeGuard[str]:
    """Whether a value is a string that can be written as UTF-8: half a surrogate pair cannot."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    """The text with what cannot be written as UTF-8 escaped."""
    return text.encode(errors="backslashreplace").decode()


def display_name(name: str) -> str:
    """A file's name as a message shows it: quoted where it would break the line or cannot be written."""
    return name if name.isprintable() else repr(name)


def quote(value: object) -> str:
    """A value as a message shows it: a text quoted, cut where it is long; of anything else its type."""
    if isinstance(value, str):
        return repr(value if len(value) <= QUOTED_CHARACTERS else value[: QUOTED_CHARACTERS - 1] + "…")
    if value is None or isinstance(value, bool | int | float):
        return "a huge number" if isinstance(value, int) and abs(value) > 10**18 else str(value)
    return f"a {type(value).__name__}"
