"""Pages give their text, whatever their encoding, and what they state."""

import gzip
import time
from collections.abc import Callable

import pytest

from bluejay.pile.sources.formats.html import Html, all_text, page_text

PROSE = "The quick brown fox is what they have seen on the way to the café, and it was not the first time that it had."
PAGE = f"""<!doctype html><html lang="fr"><head><title> A
 title </title><link rel="canonical" href="https://example.org/a"><meta name="date" content="2020-05-06">
<link rel="license" href="//creativecommons.org/licenses/by-sa/4.0/deed.fr"><script>var text = "not text";</script>
</head>
<body><nav><ul><li><a href="/">Home</a></li><li><a href="/b">Shop</a></li></ul></nav>
<main><h1>Heading</h1>{"".join(f"<p>{number}. {PROSE} {PROSE}</p>" for number in range(4))}</main>
<footer><a href="/imprint">Imprint</a></footer></body></html>"""


@pytest.mark.parametrize("extract", ["resiliparse", "justext"])
def test_the_prose_stays_and_the_boilerplate_goes(parsed: Callable, extract: str) -> None:
    ((document,), _) = parsed(Html(path="x", extract=extract), PAGE.encode())
    for number in range(4):
        assert f"{number}. {PROSE} {PROSE}" in document.text
    for word in ("Home", "Shop", "Imprint", "not text"):
        assert word not in document.text


def test_what_a_page_states(parsed: Callable) -> None:
    ((document,), _) = parsed(Html(path="x", licence="unknown"), PAGE.encode(), "a/b.html")
    assert document.url == "https://example.org/a"
    assert document.licence == "CC-BY-SA-4.0"
    assert document.meta == {"title": "A title", "language": "fr", "date": "2020-05-06"}
    ((bare,), _) = parsed(Html(path="x", licence="PSF-2.0"), b"<p>Text.", "a/b.html")
    assert (bare.url, bare.licence, bare.meta, bare.text) == ("a/b.html", "PSF-2.0", {}, "Text.")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "cp1251", "shift_jis", "utf-16", "gb18030"])
def test_encodings(parsed: Callable, encoding: str) -> None:
    words = {"cp1251": "Привет, мир", "shift_jis": "こんにちは世界", "gb18030": "你好世界"}.get(encoding, "Grüße, café")
    declared = encoding.removesuffix("-sig")
    page = f'<html><head><meta charset="{declared}"></head><body><p>{words}</p></body></html>'
    ((document,), _) = parsed(Html(path="x"), page.encode(encoding))
    assert document.text == words


@pytest.mark.parametrize("declared", ["klingon", "utf-8\0", "rot13", "utf-8"])
def test_a_wrong_encoding_loses_no_page(parsed: Callable, declared: str) -> None:
    page = f'<html><head><meta charset="{declared}"></head><body><p>caf\u00e9 \u2026 and more.</p></body></html>'
    ((document,), _) = parsed(Html(path="x"), page.encode("cp1252"))
    assert "caf" in document.text and "and more." in document.text


@pytest.mark.parametrize(("start", "text"), [("<?xml version='1.0'?>", "A & B"), ("<!doctype html>", "")])
def test_an_empty_title_ends_in_broken_xhtml_and_goes_on_in_html(start: str, text: str) -> None:
    page = (
        f"{start}<html xmlns='http://www.w3.org/1999/xhtml'><head><title/></head><body><p>A & B<br></p></body></html>"
    )
    assert all_text(page_text(page.encode(), None)) == text


@pytest.mark.parametrize("unit", ["<title ", "<title '\"", '<title "', "<title/", "<title a='' "])
def test_broken_xhtml_takes_time_in_proportion_to_its_length(unit: str) -> None:
    page = "<?xml version='1.0'?>" + unit * 40_000
    assert page_text(page.encode(), None) == page


@pytest.mark.parametrize("data", [b"", b"<html></html>", b"<script>x</script>"])
def test_a_page_without_text_is_skipped(parsed: Callable, data: bytes) -> None:
    documents, aside = parsed(Html(path="x"), data)
    assert (documents, [entry.reason for entry in aside]) == ([], ["there is no text in it"])


def test_what_is_no_page_is_skipped(parsed: Callable) -> None:
    documents, (aside,) = parsed(Html(path="x"), b"\x00" * 100)
    assert (documents, aside.reason) == ([], "not text: it begins with nothing but zero bytes")


def test_pieces_keep_their_code() -> None:
    assert all_text("<pre>  if x:\n    y()\n</pre>Donau&shy;dampf") == "  if x:\n    y()\nDonaudampf"
    assert all_text("<ol><li>Do<pre>if x:\n  y()</pre></li></ol>") == "  1. Do\n    if x:\n      y()"
    coloured = "<ol><li>Do<pre><b>if</b> x:\n  y()\n<i>z</i>()\n\n<u>k</u>\n</pre></ol>"
    assert all_text(coloured) == "  1. Do\n    if x:\n      y()\n    z()\n\n    k"
    assert all_text("<p>Say &lt;hi&gt;:</p><pre><code>if x:\n    y()\n</code></pre>") == "Say <hi>:\n\nif x:\n    y()"


def test_code_in_lists_takes_time_in_proportion_to_its_length() -> None:
    began = time.process_time()
    assert all_text("<ul>" + "<li><pre>a\nb</pre></li>" * 1500 + "</ul>").count("    b") == 1500
    assert time.process_time() - began < 10  # looked for one by one, they take a minute


def test_a_page_before_a_cut_and_bytes_behind_the_end(parsed: Callable) -> None:
    packed = gzip.compress(b"<html><body><p>A sentence of a page that is long enough to be its text.</p></body></html>")
    for damaged in (packed[:-8], packed + b"more"):
        ((document,), (aside,)) = parsed(Html(path="x"), damaged)
        assert document.text.startswith("A sentence") and aside.reason.startswith("nothing more can be read after")
