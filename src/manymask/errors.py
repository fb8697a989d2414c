"""The one kind of error that a user is meant to read."""


class UserError(Exception):
    """A mistake in what was given, told in one line that names the file and the mend.

    The command line prints it without a stack trace and exits with status 2.
    """


def at_least_one(flag: str, value: int | None) -> None:
    """`UserError` for a flag that counts something and counts nothing."""
    if value is not None and value < 1:
        raise UserError(f"{flag} must be at least 1, not {value}")
