"""A sandbox for parsers: a child process that may hang, crash or exhaust its memory without harming a build.

One child serves many files. The parent sends a request per file; the child answers with a frame per record, and sends
them a full buffer at a time. If it dies, a second child resumes after the last frame received and sends every frame at
once. If that one dies too, the record that it was parsing is the culprit: it is skipped, and a third child resumes with
the next. The limits are the operating system's (timers and RLIMIT_DATA), set by the child on itself, so they hold in
native code, cost a few system calls per record, and leave no process behind when the parent is killed.
"""

import contextlib
import functools
import io
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import weakref
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from io import BufferedIOBase
from typing import Any

from bluejay.decompress import MachineFault
from bluejay.extras import install
from bluejay.pile.documents import Document, Skipped, as_json, is_machine_fault, refuse_many_values
from bluejay.pile.sources.io.open import open_raw
from bluejay.pile.sources.io.parse import Count, label, parse, reason
from bluejay.pile.sources.io.ranges import FileRange

CPU_SECONDS = 20.0
"""CPU time that one record may take. It is CPU time so that a busy machine skips the same records as an idle one."""
CLOCK_FACTOR = 30.0
"""Multiple of the CPU time that a record may take by the clock, which ends parsers that hang without working."""
MAX_DATA_BYTES = 1 << 30
"""Memory that a child may allocate, unless its format says otherwise."""
REPLY_BUFFER_BYTES = 1 << 16
"""Size of the child's reply buffer, which saves waking the parent for every record."""
MAX_CRASHES = 100
"""Records of one file that may kill a child before the rest of the file is skipped."""
FRAME_HEADER = struct.Struct("<qq")
"""The lengths in bytes of a frame's JSON and of its text."""
PROGRAM = "from bluejay.pile.sources.io.sandbox import serve; serve()"


def sandboxed(
    source: Any,
    name: str,
    data: bytes | None,
    seconds: float = CPU_SECONDS,
    place: FileRange | None = None,
    count: bool = False,
) -> Iterator[Document | Skipped]:
    """Parse a file, or a range of it, or `data` as a file of that name, in a child process. `source` is a dataclass and
    a `parse.Parser`. With `count` there is one result of no meaning for each record.

    Raises ValueError: nothing of the file can be read; MachineFault: its parser is not installed, or the disk is full.
    """
    start, one_by_one, crashes = 0, False, 0
    most_bytes = getattr(source, "MAX_DATA_BYTES", MAX_DATA_BYTES)
    how = {"seconds": seconds, "place": place and vars(place), "count": count}
    while crashes < MAX_CRASHES:
        child, reached, ended = take_child(most_bytes), False, False
        try:
            child.request(source, name, data, start=start, one_by_one=one_by_one, **how)
            while (found := child.reply()) != {}:
                if isinstance(found, dict):
                    ended = "raised" in found
                    if ended:
                        raise (MachineFault if found["is_fault"] else ValueError)(found["raised"])
                    reached = True
                else:
                    start += 1
                    yield found
            ended = True
            return
        except (BrokenPipeError, EOFError):
            if one_by_one:
                crashes += 1
                # A child that reached no record died of splitting the file, which no other would survive.
                last = not reached or crashes == MAX_CRASHES
                number = start + (place.first if place else 0)
                yield Skipped(label(name, number), child.end() + ("; the rest was not read" if last else ""))
                start += 1
                if last:
                    return
            one_by_one = not one_by_one
        finally:
            if ended:
                idle_children(os.getpid()).append(child)
            else:
                child.stop()


@functools.cache
def idle_children(process: int) -> list["Child"]:
    """The idle children of a process. (After a fork, the parent's children remain the parent's.)"""
    return []


def take_child(most_bytes: int = MAX_DATA_BYTES) -> "Child":
    """An idle child that may allocate so much, or a new one."""
    idle = idle_children(os.getpid())
    for number, child in enumerate(idle):
        if child.most_bytes == most_bytes:
            return idle.pop(number)
    return Child(most_bytes)


class Child:
    """A process that runs `serve`."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        command = [sys.executable, "-P", "-W", "ignore", "-c", PROGRAM, str(most_bytes)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdin and self.process.stdout
        self.requests, self.replies = self.process.stdin, self.process.stdout
        self.stop = weakref.finalize(self, stop, self.process, os.getpid())

    def request(self, source: Any, name: str, data: bytes | None, **how: Any) -> None:
        """Request the parsing of a file; `how` is start, one_by_one, seconds, place, count.

        Raises BrokenPipeError: it is dead.
        """
        kind = type(source)
        values = {field.name: getattr(source, field.name) for field in fields(source)}
        size = None if data is None else len(data)
        what = {"module": kind.__module__, "class": kind.__qualname__, "values": values, "name": name, "size": size}
        self.requests.write(json.dumps({**what, **how}).encode() + b"\n")
        self.requests.write(data or b"")
        self.requests.flush()

    def reply(self) -> Document | Skipped | dict[str, Any]:
        """The next frame: a result, {"reached": n}, {"raised": ..., "is_fault": ...}, or {} at the end.

        Raises EOFError: it died.
        """
        header = self.replies.read(FRAME_HEADER.size)
        if len(header) < FRAME_HEADER.size:
            raise EOFError
        size, text_size = FRAME_HEADER.unpack(header)
        body, text = self.replies.read(size), self.replies.read(text_size)
        if len(body) < size or len(text) < text_size:
            raise EOFError
        found = json.loads(body)
        if "url" in found:
            return Document(text.decode("utf-8", "surrogatepass"), **found)
        return Skipped(**found) if "reason" in found else found

    def end(self) -> str:
        """The reason for which a child died."""
        code = self.process.wait()
        if code in (-signal.SIGPROF, -signal.SIGALRM):
            return "took too long to parse"
        return f"crashed the parser: {signal.Signals(-code).name if code < 0 else f'exit code {code}'}"


def stop(process: subprocess.Popen[bytes], owner: int) -> None:
    """Kill a child, if this is the process that started it."""
    if os.getpid() == owner:
        process.kill()
        process.wait()
        for pipe in filter(None, (process.stdin, process.stdout)):
            with contextlib.suppress(BrokenPipeError):  # raised for bytes that were never sent
                pipe.close()


def serve() -> None:
    """Run in the child: answer requests from standard input until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt stops
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # die when the parent has died
    for limited, most in ((resource.RLIMIT_DATA, int(sys.argv[1])), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(limited)[1]
        resource.setrlimit(limited, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    with io.BufferedWriter(io.FileIO(os.dup(1), "w"), REPLY_BUFFER_BYTES) as replies:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)  # what a parser prints must not mix with the replies
        os.dup2(quiet, 2)
        for line in sys.stdin.buffer:
            request = json.loads(line)
            data = None if request["size"] is None else sys.stdin.buffer.read(request["size"])
            answer(request, data, replies)
            replies.flush()


def answer(request: dict[str, Any], data: bytes | None, replies: BufferedIOBase) -> None:
    """Parse one file and send the results."""
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in request["values"].items()}
    source = getattr(import_module(request["module"]), request["class"])(**values)
    waiting, place, name = True, request["place"] and FileRange(**request["place"]), request["name"]
    parser = Count(source) if request["count"] else source
    try:
        with opened(source, name, data, place) as stream:
            limit(request["seconds"])
            for found in parse(parser, name, stream, request["start"], place):
                limit(0.0)
                if isinstance(found, Document):
                    rest = {"source": found.source, "licence": found.licence, "url": found.url, "meta": found.meta}
                    send(replies, rest, found.text)
                elif isinstance(found, Skipped):
                    send(replies, vars(found))
                elif waiting and found > request["start"]:
                    waiting = False
                    send(replies, {"reached": found})
                if request["one_by_one"]:
                    replies.flush()
                limit(request["seconds"])
            limit(0.0)
    except Exception as error:  # a dozen libraries share no class; the parent decides
        said = reason(error)
        if isinstance(error, ModuleNotFoundError):
            said = f"reading {source.kind} needs {error.name}: {install('corpus')}"
        send(replies, {"raised": said, "is_fault": is_machine_fault(error)})
    else:
        send(replies, {})


def opened(source: Any, name: str, data: bytes | None, place: FileRange | None) -> BufferedIOBase:
    """A file, a range of it, or `data`, as a stream."""
    if data is not None:
        return io.BytesIO(data)
    return source.RECORDS.open(name, place) if place else open_raw(name)


def limit(seconds: float) -> None:
    """Let the operating system kill this process after that much CPU time, or far more clock time; 0.0 is no limit."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, seconds * CLOCK_FACTOR)


def send(replies: BufferedIOBase, values: dict[str, Any], text: str = "") -> None:
    """Write one frame; in place of that of a document whose metadata are too large, the reason."""
    body, raw = json.dumps(values, default=as_json).encode(), text.encode("utf-8", "surrogatepass")
    try:
        refuse_many_values(body)
    except ValueError as error:
        body, raw = json.dumps({"name": values["url"], "reason": f"its metadata: {error}"}).encode(), b""
    replies.write(b"".join((FRAME_HEADER.pack(len(body), len(raw)), body, raw)))
