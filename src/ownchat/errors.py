"""Everything that can go wrong and is somebody's to mend.

One tree, so that a caller can catch one thing:

    OwnchatError
    ├── UserError          a person's mistake: one message, exit code 2, no traceback
    │   ├── ConfigError    an unknown key, a value out of range
    │   ├── DataError      input that cannot be read or used
    │   ├── ModelError     a model directory that is incomplete, unsafe or does not fit
    │   └── RunError       a run that is missing, busy, or was made with other settings
    ├── LedgerError        the books do not balance: a fault of ours, never the user's
    └── Interrupted        SIGINT or SIGTERM reached a stage; what was done is saved
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from difflib import get_close_matches


class OwnchatError(Exception):
    """Base of all errors that ownchat raises on purpose."""


class UserError(OwnchatError):
    """What happened, where, and what to do: the command line prints it and exits with code 2.

    >>> print(UserError("the file is empty", where="faq.csv", fix="put one question on each line"))
    faq.csv: the file is empty
    What to do: put one question on each line
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = printable(what), printable(str(where)), printable(fix)
        super().__init__(str(self))

    def __str__(self) -> str:
        message = f"{self.where}: {self.what}" if self.where else self.what
        return f"{message}\nWhat to do: {self.fix}" if self.fix else message


class ConfigError(UserError):
    """The configuration names something that does not exist or cannot be."""


class DataError(UserError):
    """The input cannot be read, understood or used."""


class ModelError(UserError):
    """A model directory is incomplete, unsafe, or does not fit its tokenizer."""


class RunError(UserError):
    """A run is missing, in use, or was made with other settings."""


class LedgerError(OwnchatError):
    """Units that entered a stage and units that left it do not add up: a fault of ours."""


class Interrupted(OwnchatError):
    """A signal ended the work early; the last checkpoint is on disk and the same command goes on."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a name that is not known: ``did you mean "epochs"?``, or an empty string.

    >>> nearest("epoch", ["epochs", "seed"])
    'did you mean "epochs"?'
    """
    matches = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f'did you mean "{matches[0]}"?' if matches else ""


def system_error(error: OSError, *, where: str) -> UserError:
    """What the machine refuses, with what to do about it; ``where`` stands in where the error names no file.

    >>> print(system_error(OSError(28, "No space left on device"), where="/home/you/.ownchat").what)
    the disk is full
    """
    where = str(error.filename or where)
    if error.errno == errno.ENOSPC:
        fix = "free space (ownchat runs shows what runs take), or set OWNCHAT_HOME to a folder on another disk"
        return UserError("the disk is full", where=where, fix=fix)
    fixes = {
        errno.EROFS: "set OWNCHAT_HOME to a folder that can be written to",
        errno.EACCES: "check the permissions, or set OWNCHAT_HOME to a folder of your own",
    }
    return UserError(error.strerror or str(error), where=where, fix=fixes.get(error.errno or 0, ""))


def printable(text: str) -> str:
    """Text without control characters: they have no meaning on a page and can steer a terminal.

    >>> printable("a\\x1b[31mb\\tc")
    'a[31mb\\tc'
    """
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", text)
