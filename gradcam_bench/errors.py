"""What a user meets when something is wrong: a sentence that says what, where, and what to do. No traceback."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

MANY = 40  # names that a sentence still lists; of more it says the nearest


class UserError(ValueError):
    """Bad input. The message is one sentence for a person; the command line prints it and exits with 2."""


def unknown(what: str, name: object, valid: Iterable[str]) -> UserError:
    """The error for a name that does not exist: names the nearest valid one, or lists them all.

    >>> str(unknown("method", "grad_cm", ["grad_cam", "cam"]))
    "unknown method 'grad_cm': did you mean 'grad_cam'? (valid: cam, grad_cam)"
    """
    names = sorted({*valid})
    close = get_close_matches(str(name), names, n=1)
    hint = f" did you mean '{close[0]}'?" if close else ""
    shown = names if len(names) <= MANY else get_close_matches(str(name), names, n=8, cutoff=0)
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return UserError(f"unknown {what} '{name}':{hint} (valid: {', '.join(shown)}{more})")


RESUME = "the same command goes on from here"


def verdict(error: BaseException) -> tuple[int, str] | None:
    """Exit code and sentence for what the user or the machine got wrong; None for a fault of the program itself."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return 2, text
    if isinstance(error, KeyboardInterrupt):  # SIGTERM comes as one, see `cli`
        return (143, f"stopped by SIGTERM; {RESUME}") if text else (130, f"interrupted; {RESUME}")
    if isinstance(error, OSError) and error.strerror:
        return 2, f"{error.filename or 'a file'}: {error.strerror}; what was finished is kept"
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "allocate memory" in text:
        return 2, f"the memory does not suffice: give a smaller batch_size= or fewer workers= ({text[:160]})"
    if "DataLoader worker" in text:
        return 2, f"a process that decodes images died; {RESUME}, with fewer workers= if memory is short ({text[:160]})"
    return None
