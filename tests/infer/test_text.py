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


@given(st.lists(st.text("ab", min_size=1, max_size=5)), st.lists(st.text("ab", min_size=1, max_size=7), min_size=1))
def test_no_more_is_held_back_than_may_begin_a_stop_sequence(tokens, stops):
    pieces, shown, text = TextStream([token.encode() for token in tokens], tuple(stops)), "", ""
    for number, token in enumerate(tokens):
        shown, text = shown + pieces.push(number), text + token
        begins = [text.index(stop) for stop in stops if stop in text]
        held = [n for stop in stops for n in range(min(len(text) + 1, len(stop))) if text.endswith(stop[:n])]
        assert pieces.stopped == bool(begins)
        assert shown == text[: min(begins) if begins else len(text) - max(held)]
        if begins:
            return
    assert shown + pieces.finish() == text


class Watched(str):
    """A string that counts how often it is looked at."""

    n_looks = 0

    def __getitem__(self, where):
        Watched.n_looks += 1
        return super().__getitem__(where)

    def startswith(self, *arguments):
        Watched.n_looks += 1
        return super().startswith(*arguments)


def test_the_work_for_a_stop_sequence_depends_on_the_text_and_not_on_its_length():
    text = "ab" * 300
    stream(text, (Watched(text + "a" * 50_000), Watched("b" * 50_000), Watched("ab" * 50 + "b" * 50_000)))
    assert Watched.n_looks < 3 * 5 * len(text)


def test_incomplete_characters_are_held_back():
    pieces, _ = stream("é€🐦")
    assert [piece for piece in pieces if piece] == ["é", "€", "🐦"]


def test_invalid_bytes_become_replacement_characters():
    pieces = TextStream(BYTES)
    assert pieces.push(0xFF) + pieces.push(ord("a")) == "\ufffda"
