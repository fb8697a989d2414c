"""The one kind of error that a user is meant to read."""


class UserError(Exception):
    """A mistake in what was given, told in one line that names the file and the mend.

    The command line prints it without a stack trace and exits with status 2.
    """
