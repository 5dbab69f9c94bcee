"""The one exception a user is meant to read."""


class UserError(Exception):
    """Something the user can put right: says what was expected, what was found, and what to do.

    Printed without a traceback; the run goes on with the next image where there is one.
    """
