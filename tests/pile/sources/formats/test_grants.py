"""Abstracts of NIH ExPORTER's tables."""

import csv
import io
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bluejay.pile.sources.formats.grants import Grants


def table(rows: list[list[str]]) -> str:
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([["APPLICATION_ID", "ABSTRACT_TEXT"], *rows])
    return out.getvalue()


def test_abstracts(parsed: Callable) -> None:
    rows = [["7", 'DESCRIPTION (provided by applicant): We "study", \nthings.'], ["8", ""], ["9", "Café."]]
    documents, (aside,) = parsed(Grants(path="x"), table(rows).encode("latin-1"))
    assert [document.text for document in documents] == ['We "study", \nthings.', "Café."]
    assert documents[0].url == "https://reporter.nih.gov/project-details/7"
    assert (aside.name, aside.reason) == ("file#1", "there is no text in it")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\r(")), max_size=5))
def test_any_text_comes_out(parsed: Callable, texts: list[str]) -> None:
    documents, aside = parsed(Grants(path="x"), table([[f"{n}", f"A{text}"] for n, text in enumerate(texts)]).encode())
    assert [document.text for document in documents] == [f"A{text}".strip() for text in texts]
    assert not aside


def test_a_broken_row_costs_itself(parsed: Callable) -> None:
    rows = [[f"{number}", f"Text {number}. " + "x" * 1000] for number in range(700)]
    data = table(rows).replace('"\r\n"4"', '\r\n"4"', 1) + "1,2,3,4\n"
    documents, aside = parsed(Grants(path="x"), data.encode())
    assert len(documents) == 700
    assert [entry.reason for entry in aside] == ["a row of 4 columns in a table of 2"]
    with pytest.raises(ValueError, match="no column ABSTRACT_TEXT"):
        parsed(Grants(path="x"), b"a,b\n1,2\n")


@pytest.mark.parametrize(
    ("table", "texts"),
    [
        (
            '1,The first.\n2,A pipe of 5" and its flow.\n3,Third.\n',
            ["The first.", 'A pipe of 5" and its flow.', "Third."],
        ),
        ('1,"One, ""two"",\nthree."\n2,5" by 6"\n', ['One, "two",\nthree.', '5" by 6"']),
        ('1,"Never closed.\n2,Second.\n3,Third.\n', ["Second.", "Third."]),
        ('1,First.\n2,"Never closed', ["First."]),
        ('1,"First" of all.\r\n\r\n2,Second.\r\n', ["First of all.", "Second."]),
    ],
)
def test_quotation_marks(parsed: Callable, table: str, texts: list[str]) -> None:
    documents, aside = parsed(Grants(path="x"), f"APPLICATION_ID,ABSTRACT_TEXT\n{table}".encode())
    assert [document.text for document in documents] == texts
    assert [entry.reason for entry in aside] == ["a quotation mark is never closed"] * ("Never" in table)
