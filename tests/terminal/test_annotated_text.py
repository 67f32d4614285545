"""Authors under any edit."""

import string

from hypothesis import given
from hypothesis import strategies as st

from bluejay.terminal.annotated_text import AnnotatedText, Span
from bluejay.terminal.editor import styled_fragments


@given(st.permutations(string.ascii_lowercase), st.integers(0, 26), st.integers(0, 26), st.text("0123", max_size=3))
def test_letters_keep_their_author_under_any_edit(letters, one, other, typed):
    """All letters differ, so that the author of each is known after the edit."""
    start, end = sorted((one, other))
    before = "".join(letters)
    spans = tuple(Span(i, i + 3, -1.0) for i in range(0, 26, 6) if i + 3 <= 26)
    after = before[:start] + typed + before[end:]
    annotated = AnnotatedText(before, spans).after_edit(after)
    model = {letter for span in spans for letter in before[span.start : span.end]}
    marked = "".join(after[span.start : span.end] for span in annotated.spans)
    assert marked == "".join(letter for letter in after if letter in model)
    whole = {before[span.start : span.end] for span in spans}
    assert all(after[span.start : span.end] in whole for span in annotated.spans if span.logprob is not None)
    # The styled fragments together are the text.
    assert "".join(text for _, text in styled_fragments(annotated, 0, len(after), True)) == after
    assert "".join(text for _, text in styled_fragments(annotated, 5, 12, False)) == after[5:12]
