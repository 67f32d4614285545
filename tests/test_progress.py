"""Messages to people never end the work that they tell of."""

import os
import subprocess
import sys

import pytest

from bluejay.progress import say, unfailing_messages

SCRIPT = """
import os, sys
from bluejay.progress import say, unfailing_messages
with unfailing_messages():
    say("one"); say("two")
    os.write(1, b"worked")
print("after it", file=sys.stderr)
sys.exit(130)
"""


@pytest.mark.parametrize("to", ["nobody", "full disk"])
def test_messages_that_cannot_be_written_change_neither_the_work_nor_how_it_ends(to):
    if to == "nobody":
        read, target = os.pipe()
        os.close(read)
    else:
        target = os.open("/dev/full", os.O_WRONLY)
    done = subprocess.run([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=target, check=False)
    os.close(target)
    assert (done.stdout, done.returncode) == (b"worked", 130)


def test_messages_that_can_be_written_are(capsys):
    with unfailing_messages():
        say("one")
        print("two", file=sys.stderr)
    say("three")
    assert capsys.readouterr().err == "one\ntwo\nthree\n"
