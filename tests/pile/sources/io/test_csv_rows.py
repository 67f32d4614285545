"""Tables of separated values, as spreadsheets and people write them."""

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from bluejay.pile.sources.io.csv_rows import rows

CELLS = st.text(st.sampled_from('a,;"\n é'), max_size=6)


@given(st.lists(st.lists(CELLS, min_size=2, max_size=3), max_size=6), st.sampled_from(",;"))
def test_what_a_writer_writes_is_read(table: list[list[str]], separator: str) -> None:
    out = io.StringIO()
    csv.writer(out, delimiter=separator).writerows(table)
    assert list(rows(io.BytesIO(out.getvalue().encode()), separator, 1000)) == table


def test_a_quotation_that_is_never_closed_costs_its_line() -> None:
    lines = [b'1,"open\n', *(b"%d,text\n" % number for number in range(2, 200)), b'200,"open']
    found = list(rows(iter(lines), ",", 300))
    broken = [row for row in found if isinstance(row, ValueError)]
    assert [f"{error}" for error in broken] == ["a quotation mark is never closed"] * 2
    assert [row for row in found if isinstance(row, list)] == [[f"{number}", "text"] for number in range(2, 200)]
