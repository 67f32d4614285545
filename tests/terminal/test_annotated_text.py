"""Who wrote what, under any edit."""

import string

from hypothesis import given
from hypothesis import strategies as st

from bluejay.terminal.annotated_text import Draft, Mark
from bluejay.terminal.editor import painted


@given(st.permutations(string.ascii_lowercase), st.integers(0, 26), st.integers(0, 26), st.text("0123", max_size=3))
def test_letters_keep_their_author_under_any_edit(letters, one, other, typed):
    """Every letter is different, so that each has one author whatever is moved where."""
    start, end = sorted((one, other))
    before = "".join(letters)
    marks = tuple(Mark(i, i + 3, -1.0) for i in range(0, 26, 6) if i + 3 <= 26)
    after = before[:start] + typed + before[end:]
    draft = Draft(before, marks).edited(after)
    model = {letter for mark in marks for letter in before[mark.start : mark.end]}
    marked = "".join(after[mark.start : mark.end] for mark in draft.marks)
    assert marked == "".join(letter for letter in after if letter in model)
    whole = {before[mark.start : mark.end] for mark in marks}
    assert all(after[mark.start : mark.end] in whole for mark in draft.marks if mark.logprob is not None)
    # Whatever is painted, the letters are those of the text.
    assert "".join(text for _, text in painted(draft, 0, len(after), True)) == after
    assert "".join(text for _, text in painted(draft, 5, 12, False)) == after[5:12]
