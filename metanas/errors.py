"""The one exception that a user is meant to read."""


class MetanasError(Exception):
    """Something the user can put right.

    The message is one sentence: it names the file, row or key, says what was expected and what to do.
    The command line prints it without a traceback and exits with code 2.
    """
