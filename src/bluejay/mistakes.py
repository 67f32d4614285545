"""One sentence for an error that a user can correct, signals that stop a long job, and standard input and output."""

import os
import select
import shlex
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path

from bluejay.extras import install, installer
from bluejay.files import FULL_DISK
from bluejay.progress import say


class Interrupted(Exception):
    """A long job was asked to stop by a signal, and has saved its state."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def sentence(error: Exception) -> str:
    """One sentence about an error: what was not possible, where, and what helps."""
    if has_no_home_folder(error):
        return "this user has no home folder, which ~ stands for; set HOME, or write the path without ~"
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed; {install('corpus')} installs what all verbs need"
    if isinstance(error, ImportError) and "socksio" in str(error):
        command = shlex.join([*installer(), "socksio"])
        return f"a SOCKS proxy needs a package that is not installed; `{command}` installs it"
    if isinstance(error, FileNotFoundError) and not error.filename and (lost := lost_certificates()):
        return lost
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    where = f": {error.filename}" if error.filename else ""
    if error.errno not in FULL_DISK:
        return f"{error.strerror}{where}"
    left = "nothing half-written is left, so " if where else ""  # else it may be what a shell writes to a file
    return f"{error.strerror}{where}; {left}make room and run the same command again"


def lost_certificates() -> str | None:
    """What is wrong with the environment variables that name certificates, of which errors of TLS name no file."""
    for name, kind in {"SSL_CERT_FILE": "file", "SSL_CERT_DIR": "folder"}.items():
        if (place := os.environ.get(name)) and not Path(place).exists():
            return f"{name} is {place}, where no {kind} is; correct or unset it"
    return None


def text_given(argument: str) -> str:
    """The text of an argument, or for `-` of standard input. Raises ValueError: it is not UTF-8, or input is closed."""
    return standard_input() if argument == "-" else well_encoded(argument, "the text")


def standard_input() -> str:
    """The text of standard input, without the mark with which some editors begin a file. Raises ValueError: it is
    closed, or not UTF-8."""
    if sys.stdin is None:
        raise ValueError("standard input is closed; give the text as an argument, or by a pipe")
    try:
        return well_encoded(sys.stdin.read().removeprefix("\ufeff"), "standard input")
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input is not UTF-8 text: {error.reason} at byte {error.start}") from None


def well_encoded(text: str, what: str) -> str:
    """The text itself. Raises ValueError: it came from bytes that are not UTF-8, which Python made surrogates of."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} is not UTF-8 text: invalid byte after {text[: error.start][-20:]!r}") from None
    return text


def open_outputs() -> None:
    """Have what is printed go nowhere where standard output or standard error is closed, as after `>&-`; and have
    standard output print a question mark for a character that it cannot encode."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open as long as the process
            setattr(sys, name, nowhere)
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")


def has_no_home_folder(error: Exception) -> bool:
    """Whether pathlib found no home folder for `~`."""
    return isinstance(error, RuntimeError) and "home directory" in str(error)


def is_first() -> bool:
    """Whether this process is the only one of its command, or the first of several."""
    return (os.environ.get("RANK") or "0") == "0"


def reader_gone() -> bool:
    """Whether standard output is a pipe that nobody reads any more, as after `| head`."""
    poll = select.poll()
    poll.register(sys.stdout, select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


@contextmanager
def stop_signals() -> Generator[list[int]]:
    """A list of the SIGINT, SIGTERM and SIGHUP received so far. A second SIGINT raises KeyboardInterrupt at once;
    schedulers that send SIGTERM follow up with SIGKILL themselves. Under nohup, SIGHUP remains ignored."""
    caught: list[int] = []

    def catch(number: int, _: object) -> None:
        if signal.SIGINT in caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not caught and is_first():
            say("stopping after this step, to save its state")
        caught.append(number)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, catch) for number in numbers}
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
