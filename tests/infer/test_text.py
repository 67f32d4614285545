"""Streamed text equals the whole text, in pieces that never have to be retracted."""

from hypothesis import given
from hypothesis import strategies as st

from bluejay.infer.text import TextStream

BYTES = [bytes([value]) for value in range(256)]


def stream(text: str, stop: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    pieces, out = TextStream(BYTES, stop), []
    for byte in text.encode():
        out.append(pieces.push(byte))
        if pieces.stopped:
            break
    return [*out, pieces.finish()], pieces.stopped


@given(st.text())
def test_the_pieces_add_up_to_the_text(text):
    pieces, _ = stream(text)
    assert "".join(pieces) == text


@given(st.text(alphabet="ab\n"), st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), max_size=3))
def test_the_text_ends_before_the_first_complete_stop_sequence(text, stops):
    pieces, stopped = stream(text, tuple(stops))
    # The stop sequence that is complete first decides; of several complete at once, the longest.
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    assert stopped == bool(ends)
    assert "".join(pieces) == (text[: min(ends)[1]] if ends else text)


def test_incomplete_characters_are_held_back():
    pieces, _ = stream("é€🐦")
    assert [piece for piece in pieces if piece] == ["é", "€", "🐦"]


def test_invalid_bytes_become_replacement_characters():
    pieces = TextStream(BYTES)
    assert pieces.push(0xFF) + pieces.push(ord("a")) == "\ufffda"
