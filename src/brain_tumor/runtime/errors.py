"""What the user can mend: one sentence and exit code 2."""


class InputError(Exception):
    """Bad input. The message is one sentence that names the file, the row and what to do."""
