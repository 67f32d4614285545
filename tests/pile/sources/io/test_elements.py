"""Elements come out one at a time, whatever is broken around them, and no file can define an entity."""

import io
import random
import time
from io import BufferedIOBase

import pytest

from bluejay.pile.sources.io import elements as xml
from bluejay.pile.sources.io.elements import document_element, element, elements, line_of, text_of


class Dripping(io.BytesIO):
    """A stream that gives a few bytes at a time."""

    def read1(self, size: int | None = -1) -> bytes:
        return self.read(random.Random(self.tell()).randint(1, 9))


def found(data: bytes, *names: str, stream: type[io.BytesIO] = io.BytesIO) -> list[tuple[str, str]]:
    return list(elements(stream(data), *names))


@pytest.mark.parametrize("stream", [io.BytesIO, Dripping])
def test_elements_of_some_names(stream: type[BufferedIOBase]) -> None:
    data = b'<r><p a="1">x</p><page>y</page><p/>\n<q>no</q><p\n>z &amp; <b>w</b></p></r>'
    assert found(data, "p", stream=stream) == [
        ("p", '<p a="1">x</p>'),
        ("p", "<p/>"),
        ("p", "<p\n>z &amp; <b>w</b></p>"),
    ]


@pytest.mark.parametrize("stream", [io.BytesIO, Dripping])
def test_values_may_hold_what_ends_a_tag(stream: type[BufferedIOBase]) -> None:
    whole = [
        """<p a="x > y" b='>"' c="/>" />""",
        """<p a="it's > 'that'">x > y</p>""",
        "<p\n a='/>' >z</p>",
        '<p a=">"/>',
    ]
    assert [source for _, source in found(f"<r>{' > '.join(whole)} </r>".encode(), "p", stream=stream)] == whole
    assert element(whole[0]).get("b") == '>"'
    assert element("<p a='>' xmlns:x='u' x:y='z'><w:q/></p>").get("a") == ">"


@pytest.mark.parametrize("stream", [io.BytesIO, Dripping])
@pytest.mark.parametrize("broken", ['<p a="b>c</p>', "<p don't>c</p>", '<p a="b>c" <i d="e"/></p>'])
def test_a_broken_tag_costs_itself(stream: type[BufferedIOBase], broken: str) -> None:
    data = f'<r><p>one</p>{broken}<p a="2">two</p></r>'.encode()
    assert [source for _, source in found(data, "p", stream=stream)] == ["<p>one</p>", broken, '<p a="2">two</p>']


def test_a_cut_file_gives_what_is_whole() -> None:
    reader = elements(io.BytesIO(b"<r><p>one</p><p>two</p><p>thr"), "p")
    assert [next(reader)[1], next(reader)[1]] == ["<p>one</p>", "<p>two</p>"]
    with pytest.raises(EOFError, match="within <p>"):
        next(reader)


def test_encodings_and_broken_bytes() -> None:
    latin = '<?xml version="1.0" encoding="ISO-8859-1"?><r><p>café</p></r>'
    assert found(latin.encode("latin-1"), "p") == [("p", "<p>café</p>")]
    assert found(latin.replace("ISO-8859-1", "UTF-16").encode("utf-16"), "p") == [("p", "<p>café</p>")]
    assert found(b"<r><p>caf\xe9 \x00\x0b</p><p>ok</p></r>", "p") == [("p", "<p>café </p>"), ("p", "<p>ok</p>")]
    broken = "<r><p>à Köln \xff</p></r>".encode().replace("ÿ".encode(), b"\xff")
    assert found(broken, "p") == [("p", "<p>à Köln \ufffd</p>")]


def test_entities() -> None:
    assert text_of(element("<p>a&nbsp;b &mdash; &#233; &lt;c&gt; &unknown;</p>")) == "a\xa0b — é <c> &unknown;"
    assert line_of(element("<p> a\n <i>b<x>no</x></i> c</p>"), frozenset({"x"})) == "a b c"
    assert line_of(None) == ""


def test_no_file_defines_an_entity() -> None:
    bomb = '<!DOCTYPE r [<!ENTITY a "aaaaaaaaaa">' + "".join(
        f'<!ENTITY a{n} "{f"&a{n - 1 if n else str()};" * 100}">' for n in range(9)
    )
    bomb += '<!ENTITY f SYSTEM "file:///etc/passwd">]><r><p x="&a8;">&a8; &f;</p></r>'
    started = time.process_time()
    ((_, source),) = found(bomb.encode(), "p")
    parsed = element(source)
    assert text_of(parsed) == "&a8; &f;"
    assert len(parsed.get("x")) < 10
    assert line_of(document_element(bomb.encode())) == "&a8; &f;"
    outside = document_element(b'<!DOCTYPE r [<!ENTITY f SYSTEM "file:///etc/passwd">]><r>&f;</r>')
    assert text_of(outside) == "&f;"
    assert time.process_time() - started < 1


def test_prefixes_and_prologues() -> None:
    assert found(b'<a:x xmlns:a="u"><a:p>one</a:p><p>two</p></a:x>', "p") == [
        ("p", "<a:p>one</a:p>"),
        ("p", "<p>two</p>"),
    ]
    for before in (
        "<?xml version='1.0' encoding='windows-1252'?>\n<!-- <!DOCTYPE y> -->\n"
        "<!DOCTYPE html PUBLIC \"-//A//B>\" 'c.dtd'>",
        '\ufeff<!DOCTYPE x [ <!ENTITY e "]>"> <!-- ] --> ] >',
        "<?xml version='1.0'?><?style a?>",
        "",
    ):
        assert line_of(document_element(f"{before}<x>caf&eacute; é</x>".encode())) == "café é"
    assert line_of(document_element("<?xml version='1.0' encoding='koi8-r'?><x>да</x>".encode("koi8-r"))) == "да"


def test_not_xml() -> None:
    with pytest.raises(ValueError, match="not well-formed"):
        element("<p><b></p>")


@pytest.mark.parametrize("stream", [io.BytesIO, Dripping])
@pytest.mark.parametrize("large", ["<p>{}</p>", '<p a="{}"/>', '<p a="{}">x</p>', "<p>{}<p/></p>"])
def test_an_element_that_is_too_large_costs_itself(
    stream: type[BufferedIOBase], large: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xml, "MAX_DOCUMENT_BYTES", 30)
    data = f"<r><p>one</p>{large.format('x ' * 100)}<p>two</p>{large.format('x ' * 100)}</r>".encode()
    sources = [source for _, source in found(data, "p", stream=stream)]
    assert [source if isinstance(source, str) else "larger" for source in sources] == [
        "<p>one</p>",
        "larger",
        "<p>two</p>",
        "larger",
    ]


@pytest.mark.parametrize("start", [b"<r><p>", b'<r><p a="', b'<r><p a="b>'])
def test_the_time_for_an_element_is_linear_in_its_size(start: bytes) -> None:
    data = start + b"x" * 200_000
    started = time.process_time()
    with pytest.raises(EOFError):
        found(data, "p", stream=Dripping)
    once = time.process_time() - started
    started = time.process_time()
    with pytest.raises(EOFError):
        found(data + b"x" * 600_000, "p", stream=Dripping)
    assert time.process_time() - started < 8 * once + 0.1
