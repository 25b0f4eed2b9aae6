"""Strings from files, made safe for messages and tables."""

import unicodedata
from typing import TypeGuard

QUOTED_CHARACTERS = 60
LONGEST_NAME = 300
LONGEST_MESSAGE = 900


def is_text(value: object) -> TypeGuard[str]:
    """Whether a value is a string that can be encoded as UTF-8 (without lone surrogates)."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def normalize(text: str) -> str:
    """The text in Unicode's composed form (NFC): a letter and its accent as one character."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def printable(text: str) -> str:
    """The text with lone surrogates, which cannot be encoded as UTF-8, escaped."""
    return text.encode(errors="backslashreplace").decode()


def one_line(text: str) -> str:
    """The text with line breaks and unprintable characters escaped."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text
    )


def display_name(name: str) -> str:
    """A name as messages show it: shortened if it is long, quoted if it has unprintable characters."""
    shown = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
    return shown if name.isprintable() else repr(shown)


def shorten(message: str) -> str:
    """A message of at most `LONGEST_MESSAGE` characters: a longer one keeps its start and its end."""
    if len(message) <= LONGEST_MESSAGE:
        return message
    end = LONGEST_MESSAGE // 3
    return f"{message[: LONGEST_MESSAGE - end - 3]} … {message[-end:]}"


def quote(value: object) -> str:
    """A value as messages show it: a string quoted and shortened if it is long, another value by its type."""
    if isinstance(value, str):
        return repr(value if len(value) <= QUOTED_CHARACTERS else value[: QUOTED_CHARACTERS - 1] + "…")
    if value is None or isinstance(value, bool | int | float):
        return "a huge number" if isinstance(value, int) and abs(value) > 10**18 else str(value)
    return f"a {type(value).__name__}"
