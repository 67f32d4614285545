"""Documents are told by what is in them; what cannot be read is skipped with what to do."""

import io
import zipfile
from collections.abc import Callable

import pytest

from bluejay.pile.sources.formats.office import Office
from tests.pile.sources.formats.office.files import docx, opendocument, p, relations, zipped

OLD = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504)
MAIN = {"_rels/.rels": relations({"a": ("officeDocument", "xl/workbook.xml")})}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (OLD, "an office document of an old kind; save it as .docx or .pptx"),
        (OLD + "EncryptedPackage".encode("utf-16-le"), "encrypted: it needs a password"),
        (docx(p("text"))[:400], "not an office document: File is not a zip file"),
        (zipped({"a.txt": "text"}), "not an office document: it names no main part"),
        (zipped({**MAIN, "xl/workbook.xml": "<workbook/>"}), "a spreadsheet; save it as CSV"),
        (zipped({**MAIN, "xl/workbook.xml": "<drawing/>"}), "it holds neither text nor slides"),
        (zipped(MAIN), "a part is missing: xl/workbook.xml"),
        (opendocument("", kind="spreadsheet"), "a spreadsheet; save it as CSV"),
        (docx(""), "there is no text in it"),
        (docx("<w:ins>" * 1500 + "</w:ins>" * 1500), "it is nested too deeply"),
    ],
)
def test_what_cannot_be_read(parsed: Callable, data: bytes, reason: str) -> None:
    documents, (aside,) = parsed(Office(path="x"), data)
    assert (documents, aside.reason) == ([], reason)


def test_a_member_with_a_password_is_encrypted(parsed: Callable) -> None:
    data = bytearray(docx(p("text")))
    at = data.rfind(b"PK\x01\x02", 0, data.rfind(b"word/document.xml"))
    data[at + 8] |= 1
    documents, (aside,) = parsed(Office(path="x"), bytes(data))
    assert (documents, aside.reason) == ([], "encrypted: it needs a password")


def test_no_entity_is_expanded_and_no_file_opened(parsed: Callable, tmp_path) -> None:
    (tmp_path / "secret").write_text("a secret")
    entities = f'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;"><!ENTITY c SYSTEM "file://{tmp_path}/secret">]>'
    document = (
        f'{entities}<w:document xmlns:w="urn:w"><w:body>{p("Text&b;&c;.").replace("w:", "w:")}</w:body></w:document>'
    )
    main = {"_rels/.rels": relations({"a": ("officeDocument", "document.xml")}), "document.xml": document}
    for found in (found for kind in parsed(Office(path="x"), zipped(main)) for found in kind):
        assert "secret" not in repr(found) and "aaaa" not in repr(found)


def test_a_part_that_unpacks_to_too_much_is_skipped(parsed: Callable, monkeypatch) -> None:
    monkeypatch.setattr("bluejay.pile.documents.MAX_DOCUMENT_BYTES", 100_000)
    documents, (aside,) = parsed(Office(path="x"), docx(p("text ") * 3000))
    assert not documents and "larger than" in aside.reason


def test_names_in_another_case_and_with_backslashes_are_found(parsed: Callable) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(docx(p("Text.")))) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name.replace("word/document.xml", "Word/Document.xml"), old.read(name))
    data = out.getvalue().replace(b"_rels/.rels", b"_rels\\.rels")
    assert [document.text for document in parsed(Office(path="x"), data)[0]] == ["Text."]


def test_metadata_and_licence(parsed: Callable) -> None:
    about = "<dc:title>A title</dc:title><dc:creator>Ann; Bo</dc:creator><dcterms:created>2020-02-03</dcterms:created>"
    ((document,), _) = parsed(Office(path="x", licence="MIT"), docx(p("Text."), about))
    assert (document.licence, document.url) == ("MIT", "file")
    assert document.meta == {"title": "A title", "authors": ["Ann", "Bo"], "date": "2020-02-03"}
    ((document,), _) = parsed(Office(path="x", licence="MIT"), docx(p("Text."), "<dc:rights>CC BY 4.0</dc:rights>"))
    assert document.licence == "CC-BY-4.0"
