"""What is said of an error that the user can mend or of a stop, and whether anybody reads."""

import errno
import select
import sys

from bluejay.extras import install


class Interrupted(Exception):
    """A long job was asked to stop by a signal, and has saved its state."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def sentence(error: Exception) -> str:
    """One sentence about an error: what was not possible, where, and what helps."""
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed; {install('corpus')} installs what all verbs need"
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    where = f": {error.filename}" if error.filename else ""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    helps = "; nothing half-written is left, so make room and run the same command again" if full else ""
    return f"{error.strerror}{where}{helps}"


def reader_gone() -> bool:
    """Whether standard output is a pipe that nobody reads any more, as after `| head`."""
    poll = select.poll()
    poll.register(sys.stdout, select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))
