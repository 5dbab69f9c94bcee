"""The one exception a user is meant to read, and the names that its message may offer."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can put right: says what was expected, what was found, and what to do.

    Printed without a traceback; the run goes on with the next image where there is one.
    """


def in_short(error: Exception) -> str:
    """The first line of what an error says; of one that says nothing, its kind."""
    return (str(error) or type(error).__name__).splitlines()[0]


def near(name: str, known: Iterable[str]) -> str:
    """The known names most like this one, as "a or b"; "" if none is."""
    return " or ".join(difflib.get_close_matches(name, list(known), n=3, cutoff=0.5))
