"""The one exception a user meets: a sentence that says what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Bad input. The message is one sentence for a person; the command line prints it and exits with 2."""


def unknown(what: str, name: object, valid: Iterable[str]) -> UserError:
    """The error for a name that does not exist: names the nearest valid one, or lists them all.

    >>> str(unknown("method", "grad_cm", ["grad_cam", "cam"]))
    "unknown method 'grad_cm': did you mean 'grad_cam'? (valid: cam, grad_cam)"
    """
    names = sorted(valid)
    close = get_close_matches(str(name), names, n=1)
    hint = f" did you mean '{close[0]}'?" if close else ""
    return UserError(f"unknown {what} '{name}':{hint} (valid: {', '.join(names)})")
