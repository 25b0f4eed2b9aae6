"""Texts from files, as a message or a table can hold them."""

import unicodedata
from typing import TypeGuard

QUOTED_CHARACTERS = 60
LONGEST_NAME = 300


def is_text(value: object) -> TypeGuard[str]:
    """Whether a value is a string that can be written as UTF-8: half a surrogate pair cannot."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def compose(text: str) -> str:
    """The text in Unicode's composed form: an accent and its letter can be written as one or as two."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def printable(text: str) -> str:
    """The text with what cannot be written as UTF-8 escaped."""
    return text.encode(errors="backslashreplace").decode()


def one_line(text: str) -> str:
    """The text with all escaped that would break a line, cannot be seen, or cannot be written."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text
    )


def display_name(name: str) -> str:
    """A name as messages show it: shortened if it is long, quoted if it has unprintable characters."""
    shown = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
    return shown if name.isprintable() else repr(shown)


def quote(value: object) -> str:
    """A value as a message shows it: a text quoted, cut where it is long; of anything else its type."""
    if isinstance(value, str):
        return repr(value if len(value) <= QUOTED_CHARACTERS else value[: QUOTED_CHARACTERS - 1] + "…")
    if value is None or isinstance(value, bool | int | float):
        return "a huge number" if isinstance(value, int) and abs(value) > 10**18 else str(value)
    return f"a {type(value).__name__}"
