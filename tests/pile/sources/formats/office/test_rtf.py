"""What a reader of an RTF file sees is its text."""

from collections.abc import Callable

import pytest

from bluejay.pile.sources.formats.office import Office


@pytest.fixture
def text(parsed: Callable) -> Callable[[str], str]:
    def read(inner: str) -> str:
        ((document,), aside) = parsed(Office(path="x"), f"{{\\rtf1\\ansi {inner}}}".encode("latin-1"))
        assert not aside
        return document.text

    return read


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        (r"One\par two \{x\} a\~b\_c co\-op.\pard\par" + "\\\nThree", "One\n\ntwo {x} a\xa0b-c coop.\n\nThree"),
        (r"caf\'e9 \u8364?10 \uc2\u12353\'82\'9f. \u-10179?\u-8704?", "café €10 ぁ. 😀"),
        (r"{\fonttbl{\f0 A;}{\f1\fcharset204 B;}{\f2\fcharset128 C;}}\f1\'cf\'f0{\f2\'83e\'83\'58} x", "Прテス x"),
        (r"{\fonttbl{\f3\fcharset2 Symbol;}}{\f3 a\'b0 b}", "α° β"),
        (r"{\fonttbl{\f4\fcharset2{\*\panose 05}Wingdings;}{\f5 A;}}{\f4\'e0} a {\f4\u-3844\'fc\f5 b}", "→ a ✓b"),
        (r"a{\v hidden}b{\deleted gone\par}c\v no\v0 d\v\plain e", "abcde"),
        (
            r"{\header top\par}a{\pict\bin3 }}}}b{\*\unknown{c}}{\object{\*\objdata 00}{\result d}}{\annotation e}",
            "abd",
        ),
        (r"a{\b\*\cs7 b}", "ab"),
        (r"See {\field{\*\fldinst{HYPERLINK x}}{\fldrslt{a link}}}.", "See a link."),
        (r"{\field{\*\fldinst TOC}{\fldrslt One 1\par Two 2}}Text", "Text"),
        (
            r"A{\footnote {\super x} Foot\par twice} b{\*\footnote\ftnalt End}.",
            "A[1] b[2].\n\n[1] x Foot\n\ntwice\n\n[2] End",
        ),
        (
            r"Be{\shp{\*\shpinst{\sp{\sn x}{\sv 1}}{\shptxt \pard In a box.\par}}{\shprslt In}}fore.",
            "Before.\n\nIn a box.",
        ),
        (
            r"{\stylesheet{\s1 heading 2;}{\s2\sbasedon1 Title;}}\s2 T\par\pard\s1 H\par\pard\outlinelevel2 O",
            "# T\n\n## H\n\n### O",
        ),
        (
            r"{\listtext\pard\plain 1.\tab}\pard\ilvl0 one\par{\listtext\'b7\tab}\ilvl1 two\par\pard end",
            "1. one\n  - two\n\nend",
        ),
        (r"\trowd\intbl a\cell b\par c\cell\row\trowd\intbl d\cell e\cell\row\pard end", "a\tb c\nd\te\n\nend"),
    ],
)
def test_text(text: Callable, inner: str, expected: str) -> None:
    assert text(inner) == expected


def test_metadata(parsed: Callable) -> None:
    info = rb"{\info{\title A caf\'e9}{\author Ann; Bo}{\creatim\yr2020\mo2\dy3\hr4}{\revtim\yr2021\mo1\dy1}}"
    ((document,), _) = parsed(Office(path="x"), rb"{\rtf1\ansi" + info + b" Text.}")
    assert document.meta == {"title": "A café", "authors": ["Ann", "Bo"], "date": "2020-02-03"}


def test_what_is_broken_off_is_kept_so_far(parsed: Callable) -> None:
    for end in (b"", b"{\\footnote x", b"}}}", b"{\\pict 00", b"\\", b"\\'", b"\\bin99"):
        ((document,), _) = parsed(Office(path="x"), b"{\\rtf1 A text." + end)
        assert document.text.startswith("A text.")
