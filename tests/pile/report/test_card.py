"""The card accounts for every document, and nothing in a document becomes markup."""

import os
import re
from pathlib import Path

import pytest

from bluejay.pile.build import build
from bluejay.pile.recipe import PileRecipe
from bluejay.pile.report import card
from bluejay.pile.report.card import write_card
from bluejay.pile.report.counts import Report
from bluejay.recipe import check

EVIL = "# Heading\n````\n<script>alert(1)</script> | [link](javascript:alert(1)) ![x](http://example.com/x.png)\n"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer_folder: str) -> Path:
    folder = tmp_path_factory.mktemp("card")
    for number in range(30):
        (folder / f"{number}.txt").write_text(f"{EVIL} {number} " * (number + 1))
    (folder / "prices").mkdir()
    (folder / "prices" / "0.txt").write_text("four dollars")
    (folder / "copy.txt").write_text((folder / "3.txt").read_text())
    (folder / "bad|`name`.txt").write_bytes(bytes(range(1, 32)))
    component = [
        {"name": "Notes", "licence": "CC0-1.0", "source": [{"kind": "text", "path": f"{folder}/*.txt"}]},
        {"name": "A$x_$", "source": [{"kind": "text", "path": f"{folder}/prices/*.txt"}]},
        {"name": "Books", "unavailable": "they were <b>withdrawn</b>"},
    ]
    tokenizer = {"path": byte_tokenizer_folder}
    values = {"name": "notes", "output": str(folder / "built"), "tokenizer": tokenizer, "component": component}
    directory = build(check(PileRecipe, values | {"dedup": {"near": {}}}, "the test")).directory
    write_card(directory)
    return directory


def test_the_card_accounts_for_every_document(corpus: Path) -> None:
    text = (corpus / "card/card.md").read_text()
    found, added, kept, dropped, skipped = map(
        int, re.search(r"\| Notes \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", text).groups()
    )
    assert (found, skipped) == (32, 1)
    assert found + added == kept + dropped + skipped and added > 0
    assert "## Held-out text cut out of training documents" in text
    assert "| Notes | exact copy | 1 |" in text
    assert "| Notes | CC0-1.0 |" in text
    assert "they were" in text
    assert "## Near-copies" in text
    sums = (corpus / "SHA256SUMS").read_text()
    assert sums in text
    assert {path.name for path in (corpus / "card").iterdir()} == {"card.md", "card.html", "mixture.png", "lengths.png"}


def test_text_of_documents_is_escaped(corpus: Path) -> None:
    page = (corpus / "card/card.html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    assert "<b>" not in page
    assert 'example.com/x.png"' not in page
    assert 'javascript:alert(1)"' not in page


def test_a_name_that_is_not_utf_8(tmp_path: Path, byte_tokenizer_folder: str) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")).write_text("One document.")
    component = [{"name": "A", "source": [{"kind": "text", "path": f"{tmp_path}/*.txt"}]}]
    values = {"name": "n", "output": f"{tmp_path}/built", "component": component, "split": {"valid": 0.0, "test": 0.0}}
    values |= {"tokenizer": {"path": byte_tokenizer_folder}}
    directory = build(check(PileRecipe, values, "the test")).directory
    assert "/caf\ufffd.txt |" in write_card(directory).read_text(encoding="utf-8")


def test_the_card_of_many_files_says_where_the_others_are_listed(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (corpus / "card/card.md").read_text()
    read = text.partition("## Files read")[2].partition("## ")[0]
    assert read.count("| Notes |") == len(list(corpus.parent.glob("*.txt"))) - 1 == 31  # one gave no document
    assert "others" not in read
    monkeypatch.setattr(card, "MOST_FILES", 20)
    report = Report.load(corpus)
    rows = [row for row in card.inputs(report.components) if row[0] == "Notes"]
    assert len(rows) == 21
    assert rows[-1][1] == "11 others, which report.json lists"
    assert len(report.components["Notes"].inputs) == 31


def test_without_a_corpus_there_is_no_card(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no corpus in .*; bluejay pile build RECIPE makes one"):
        write_card(tmp_path)


def test_a_corpus_whose_epochs_leave_nothing_has_a_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], byte_tokenizer_folder: str
) -> None:
    (tmp_path / "a.txt").write_text("One document.")
    source = [{"kind": "text", "path": f"{tmp_path}/a.txt"}]
    component = [{"name": "A", "epochs": 1e-9, "source": source}]
    tokenizer = {"path": byte_tokenizer_folder}
    values = {"name": "n", "output": f"{tmp_path}/built", "tokenizer": tokenizer, "component": component}
    split = {"valid": 0.0, "test": 0.0}
    directory = build(check(PileRecipe, values | {"split": split}, "the test")).directory
    assert "the training part is empty" in capsys.readouterr().err
    assert "| A | 1 | 0.01 KiB | 0.00 | 0 | 0.00 % | 0 | 0 |" in write_card(directory).read_text()
