"""The exception that commands report to the user in one line."""


class UserError(Exception):
    """A mistake in an input, a config or the order of commands.

    The message is one line: it names the file, key or value at fault and says what to do. Commands print it
    without a traceback and exit with status 2.
    """
