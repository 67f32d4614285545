"""Tables of separated values, as spreadsheets and people write them."""

import csv
import io
from typing import Any

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


def read(table: bytes, separator: str = "\t") -> list[list[str] | ValueError]:
    return list(rows(io.BytesIO(table), separator, 1 << 20))


def test_a_quotation_mark_in_a_table_that_quotes_nothing_is_text() -> None:
    assert read(b'1\t"Hello there\n2\tsaid "yes"\n3\t"World\n4\tx\n5\ty "z\n') == [
        ["1", '"Hello there'],
        ["2", 'said "yes"'],
        ["3", '"World'],
        ["4", "x"],
        ["5", 'y "z'],
    ]
    assert read(b'"a\tb"\t"c\nd"\t"Hello\n2\t"q" r\n') == [["a\tb", "c\nd", '"Hello'], ["2", "q r"]]
    assert read(b'1,"He said\n""hi"" to me" ,2\n', ",") == [["1", 'He said\n"hi" to me ', "2"]]


def test_a_backslash_before_a_quotation_mark_keeps_it_in_the_quotation() -> None:
    table = b'1,"He said \\"hi\\" and left",y\n2,"a, \\"b\\"",z\n3,"one \\"two\\" three\nand \\"four\\" five",z\n'
    assert read(table, ",") == [
        ["1", 'He said "hi" and left', "y"],
        ["2", 'a, "b"', "z"],
        ["3", 'one "two" three\nand "four" five', "z"],
    ]
    assert read(b'1,"C:\\dir\\",z\n2,"a \\"" b",z\n', ",") == [["1", "C:\\dir\\", "z"], ["2", 'a \\" b', "z"]]


def test_a_hostile_table_takes_no_quadratic_time() -> None:
    searches = 0

    class Line(bytes):
        """A line that counts how often it is searched."""

        def find(self, *what: Any) -> int:
            nonlocal searches
            searches += 1
            return super().find(*what)

    taken = []
    for n in (500, 2_000):
        assert sum(1 for _ in rows(iter([Line(b'a","b\n')] * n), ",", 1 << 24)) == n
        taken.append(searches)
    assert taken[1] < 4 * taken[0]
