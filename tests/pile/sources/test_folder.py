"""A folder of files of several kinds is one corpus, in which every file is read once."""

import bz2
import gzip
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bluejay import recipe as recipes
from bluejay.own_text import corpus
from bluejay.pile.build import BuildResult
from bluejay.pile.recipe import PileRecipe
from tests.pile.sources.formats.office.files import docx, opendocument, p, pptx, shape


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def corpus_of(folder: Path, tokenizer: str, force: bool = False) -> BuildResult:
    """The corpus that is built of a folder, without held-out text."""
    values = recipes.plain(corpus.corpus_recipe_of(folder, Path("runs/notes"), "notes", None))
    values |= {"split": {"valid": 0.0, "test": 0.0}, "tokenizer": {"path": tokenizer}}
    return corpus.build(recipes.check(PileRecipe, values, "test"), force=force)


def texts_of(folder: Path, tokenizer: str) -> list[str]:
    """The texts of the corpus that is built of a folder."""
    documents = corpus_of(folder, tokenizer).directory / "documents/train.parquet"
    return pq.read_table(documents)["text"].to_pylist()


def test_a_folder_of_several_kinds_of_file_is_one_corpus(here, byte_tokenizer_folder):
    folder = here / "notes"
    (folder / "deep").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / ".git/config").write_text("secret")
    (folder / "one.md").write_text("the first text\n")
    (folder / "deep/two.txt").write_text("the second text\n")
    (folder / "three.jsonl").write_text('{"text": "the third text"}\n')
    (folder / "four.csv").write_text("id,text\n1,the fourth text\n")
    texts = texts_of(folder, byte_tokenizer_folder)
    assert sorted(text.split()[1] for text in texts) == ["first", "fourth", "second", "third"]


def test_files_are_found_however_their_endings_and_folders_are_written(here, byte_tokenizer_folder):
    folder = here / "notes [2023]"
    folder.mkdir()
    for name in ("a.html", "b.HTML", "c.Htm"):
        (folder / name).write_text(f"<html><body><p>The page {name[0]}.</p></body></html>")
    (folder / "d.csv").write_text("id,text\n1,The page d.\n")
    (folder / "e.txt").write_text("The page e.")
    assert sorted(map(str.strip, texts_of(folder, byte_tokenizer_folder))) == [f"The page {x}." for x in "abcde"]


def test_compressed_files_of_a_folder_are_read_once_each(here, byte_tokenizer_folder):
    Path("notes").mkdir()
    plain = "The text of {}."
    files = {
        "a.txt.gz": plain.format("a"),
        "b.md.GZ": plain.format("b"),
        "c.gz": plain.format("c"),
        "d.csv.gz": f"id,text\n1,{plain.format('d')}\n",
        "e.v[1].bz2": plain.format("e"),
        "f.txt": plain.format("f"),
    }
    for name, content in files.items():
        pack = {".gz": gzip.compress, ".bz2": bz2.compress}.get(Path(name).suffix.lower(), bytes)
        Path("notes", name).write_bytes(pack(content.encode()))
    built = corpus_of(Path("notes"), byte_tokenizer_folder)
    assert built.report.components["notes"].found == len(files)
    texts = pq.read_table(built.directory / "documents/train.parquet")["text"].to_pylist()
    assert sorted(map(str.strip, texts)) == [plain.format(letter) for letter in "abcdef"]


def test_every_ending_of_a_kind_is_read(here, byte_tokenizer_folder):
    files = {
        "a.ndjson": '{"text": "The text a."}\n',
        "b.jsonlines": '{"text": "The text b."}\n',
        "c.tsv": "id\ttext\n1\tThe text c.\n",
        "d.xhtml": "<html><head><title/></head><body><p>The text d.</p></body></html>",
        "e.eml": "Subject: no text\n\nThe text e.\n",
        "f.json": '[{"text": "The text f."}]',
        "g.json": '{"text": "The text g."}\n{"text": "The text h."}\n',
        "i.srt": "1\n00:00:01,000 --> 00:00:02,000\nThe text i.\n",
        "j.vtt": "WEBVTT\n\n00:01.000 --> 00:02.000\nThe text j.\n",
        "k.nxml": "<article><body><p>The text k.</p></body></article>",
    }
    Path("notes").mkdir()
    for name, content in files.items():
        Path("notes", name).write_text(content)
    found = sorted(map(str.strip, texts_of(Path("notes"), byte_tokenizer_folder)))
    assert found == [f"The text {letter}." for letter in "abcdefghijk"]
    for name, content in files.items():
        ((source,), size) = corpus.sources_of(Path("notes", name), [])
        assert size == len(content) and (source.get("separator") == "\t") == (name == "c.tsv")


def test_documents_of_programs_are_read(here, byte_tokenizer_folder):
    Path("notes/deep").mkdir(parents=True)
    for name in ("a.docx", "deep/b.DOCX"):
        Path("notes", name).write_bytes(docx(p(f"The text {Path(name).stem}.")))
    Path("notes/c.odt").write_bytes(opendocument("<text:p>The text c.</text:p>"))
    Path("notes/d.pptx").write_bytes(pptx({"s": shape("body", "The text d.")}, {}))
    Path("notes/e.rtf").write_bytes(b"{\\rtf1 The text e.}")
    Path("notes/f.ipynb").write_text('{"cells": [{"cell_type": "markdown", "source": "The text f."}]}')
    Path("notes/old.doc").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100))
    assert sorted(texts_of(Path("notes"), byte_tokenizer_folder)) == [f"The text {letter}." for letter in "abcdef"]
    (skipped,) = pq.read_table("data/notes/documents/skipped.parquet").to_pylist()
    assert skipped["reason"] == "an office document of an old kind; save it as .docx, .pptx or CSV"


def test_links_to_files_are_read(here, byte_tokenizer_folder, capsys):
    store, notes = here / "store", here / "notes"
    for name in ("1", "2", "3", "4", "5"):
        (store / name).parent.mkdir(exist_ok=True)
        (store / name).write_text(f"text {name}")
    for name, kept in {"a.txt": "1", "deep/b.txt": "2", "README": "3", "c.gone": "none", "loop.txt": "loop"}.items():
        (notes / name).parent.mkdir(parents=True, exist_ok=True)
        (notes / name).symlink_to(notes / "loop.txt" if name == "loop.txt" else store / kept)
    (notes / "d.txt").write_text("text d")
    (notes / "plain.md").write_text("text e")
    (notes / "folder").symlink_to(notes)
    assert sorted(texts_of(notes, byte_tokenizer_folder)) == ["text 1", "text 2", "text 3", "text d", "text e"]
    said = capsys.readouterr().err
    assert f"links to folders are left out: 1, such as {notes}/folder" in said and "matches no file" not in said
    skipped = pq.read_table("data/notes/documents/skipped.parquet").to_pylist()
    assert sorted(Path(row["name"]).name for row in skipped) == ["c.gone", "loop.txt"]


def test_no_link_leads_to_files_outside_of_a_repository(here, byte_tokenizer_folder, capsys):
    Path("secret.json").write_text('{"text": "a secret"}')
    Path("secret.csv").write_text("text\na secret\n")
    for name in ("secret.txt.gz", "secret.csv.gz"):
        Path(name).write_bytes(gzip.compress(b"text\na secret"))
    Path("secret.txt").write_text("a secret")
    for name in ("work/.git/annex/1", "work/notes/a.txt"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(f"text of {Path(name).name}")
    Path("work/notes/annexed.txt").symlink_to("../.git/annex/1")
    Path("work/notes/own.csv").write_text("text\ntext of own\n")
    Path("work/notes/own.gz").write_bytes(gzip.compress(b"text of gz"))
    for ending in ("txt", "txt.gz", "csv.gz", "json", "csv"):
        Path(f"work/notes/stolen.{ending}").symlink_to(f"../../secret.{ending}")
    texts = sorted(texts_of(Path("work/notes"), byte_tokenizer_folder))
    assert texts == ["text of 1", "text of a.txt", "text of gz", "text of own"]
    assert "links to files outside of their git repository are left out: 5, such as" in capsys.readouterr().err


def test_a_thesis_of_several_files_is_one_document(here, byte_tokenizer_folder, capsys):
    """As LaTeX sets it; its chapters and what LaTeX wrote beside them are not counted again."""
    chapters = {"one": "The first chapter. \\input{chapters/table}", "two": "The second chapter."}
    whole = "".join(f"\\include{{chapters/{name}}}" for name in chapters)
    main = f"\\documentclass{{book}}\\begin{{document}}\\title{{T}}{whole}\\end{{document}}"
    files = {"main.tex": main, "aside.tex": "A chapter of nothing.", "chapters/table.tex": "A table."}
    files |= {f"chapters/{name}.tex": text for name, text in chapters.items()}
    files |= dict.fromkeys(("main.log", "main.pdf", "chapters/one.aux", "main.synctex.gz"), "what LaTeX wrote")
    files |= {"notes.log": "A log of days."}
    for name, text in files.items():
        Path("thesis", name).parent.mkdir(parents=True, exist_ok=True)
        Path("thesis", name).write_text(text)
    built = corpus_of(Path("thesis"), byte_tokenizer_folder)
    texts = pq.read_table(built.directory / "documents/train.parquet")["text"].to_pylist()
    thesis = "# T\n\nThe first chapter. A table.\n\nThe second chapter."
    assert sorted(texts) == [thesis, "A chapter of nothing.", "A log of days."]
    assert built.report.components["notes"].found == 3
    said = capsys.readouterr().err
    assert "what LaTeX made of .tex files beside it is left out: 4, such as" in said and "matches no file" not in said
    read = {Path(entry["name"]).name for entry in built.report.components["notes"].inputs}
    assert read >= {"main.tex", "one.tex", "two.tex", "table.tex"}
    Path("thesis/chapters/two.tex").write_text("The last chapter, written anew.")
    built = corpus_of(Path("thesis"), byte_tokenizer_folder, force=True)
    texts = pq.read_table(built.directory / "documents/train.parquet")["text"].to_pylist()
    assert any("The last chapter, written anew." in text for text in texts)
