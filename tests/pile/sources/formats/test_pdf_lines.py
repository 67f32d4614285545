"""Lines of pages become running text, by their words and by their places."""

import pytest

from bluejay.pile.sources.formats.pdf_lines import Line, join_lines, running_text, without_running_titles


def pages_of(pages: list[list[str]]) -> list[list[Line]]:
    return [[Line(text) for text in page] for page in pages]


def texts_of(pages: list[list[Line]]) -> list[list[str]]:
    return [[line.text for line in page] for page in pages]


def set_in(width: float, *lines: str, indents: dict[int, float] | None = None) -> list[Line]:
    """A page of lines in a font of 5 points a letter, one below the other; `width` is where the full ones end."""
    page = []
    for number, text in enumerate(lines):
        left, base = 70 + (indents or {}).get(number, 0.0), 700.0 - 12 * number
        natural = left + 5 * len(text)
        right = 70 + width if abs(natural - 70 - width) < 8 else natural
        page.append(Line(text, left, right, base, base + 7, 10.0))
    return page


def test_words_are_joined_as_far_as_the_text_shows() -> None:
    assert join_lines("a hyphen\ufffe\nated word\nand a well-\nknown. One\nTwo, three,\nFour") == (
        "a hyphenated word and a well-known. One\nTwo, three, Four"
    )
    assert join_lines("modi\x1ced \x1ductuation o\x1bers 1986\x151989 \x10no\x11\n\x10\nx\x00") == (
        "modified fluctuation offers 1986–1989 “no”\n\nx"
    )


def test_ligatures_and_private_codes_are_letters() -> None:
    assert join_lines("an eﬃcient ﬁnd") == "an efficient find"
    # what fonts with the glyphs oneoldstyle, Asmall, Eacutesmall and braceleftmid give
    assert join_lines("In \uf731\uf739\uf735\uf734, N\uf761t\uf7e9, \uf8f2") == "In 1954, Naté, ⎨"


def test_no_spaces_come_into_chinese_and_japanese() -> None:
    assert (
        join_lines("テ\nンプレート、\n例。\nつまり\nbash と\n한국어\n단어")
        == "テンプレート、例。つまり bash と 한국어 단어"
    )


@pytest.mark.parametrize(
    ("lines", "indents", "text"),
    [
        (
            ("For example the command", "> x[1] <- 0", "replaces a value of x by zero and gives x"),
            {},
            "For example the command\n> x[1] <- 0\nreplaces a value of x by zero and gives x",
        ),
        (
            ("Nach dem Druck der ersten zwei langen Bogen", "ging das Blatt an den Setzer zurueck, der es"),
            {},
            "Nach dem Druck der ersten zwei langen Bogen ging das Blatt an den Setzer zurueck, der es",
        ),
        (
            (
                "Nach dem ersten Druck der Noten hat das alte",
                "Haus am Markt auch den Satz von Texten in das",
                "Verzeichnis genommen, und zwar mit dem neuen",
                "Verfahren, das hier in aller Ruhe gezeigt",
                "Wird. Ein Absatz, der eingerueckt ist, geht",
                "Fort",
            ),
            {5: 20.0},
            "Nach dem ersten Druck der Noten hat das alte Haus am Markt auch den Satz von Texten in das "
            "Verzeichnis genommen, und zwar mit dem neuen Verfahren, das hier in aller Ruhe gezeigt\n"
            "Wird. Ein Absatz, der eingerueckt ist, geht\nFort",
        ),
    ],
    ids=["a short line ends a paragraph", "a full one does not", "nor one before a capital in justified text"],
)
def test_places_show_where_paragraphs_end(lines: tuple[str, ...], indents: dict[int, float], text: str) -> None:
    assert running_text([set_in(220, *lines, indents=indents)]) == text


def test_text_behind_a_raised_character_is_in_the_same_line() -> None:
    page = [
        Line("a structure2", 70, 130, 700, 707, 10.0),
        Line(", as it is", 131, 180, 700, 702, 10.0),
        Line("m3", 184, 193, 700, 705, 10.0),
        Line("Below", 70, 95, 688, 695, 10.0),
    ]
    assert running_text([page]) == "a structure2, as it is m3\nBelow"


def test_of_numbers_at_the_edges_of_a_page_one_is_its_number() -> None:
    pages = [["A Title", "", f"{number}", "1984", "was a year.", "15", "17", f"{number}", ""] for number in range(6)]
    assert texts_of(without_running_titles(pages_of(pages))) == [["1984", "was a year.", "15", "17"]] * 6
    assert texts_of(without_running_titles(pages_of([["12", "Anna", "13"], ["", "7"]]))) == [["Anna"], []]


def test_left_and_right_pages_have_running_titles_of_their_own() -> None:
    pages = [["A Title", "Text a."]]
    for number in range(2, 10):
        head = [f"{number}", "Ann Author"] if number % 2 else ["A Journal", f"{number}"]
        pages.append([*head, f"Text {'abcdefghij'[number]}."])
    assert texts_of(without_running_titles(pages_of(pages))) == [pages[0], *([page[2]] for page in pages[1:])]


def test_a_running_title_may_change_with_the_chapter_if_it_has_the_number_of_the_page() -> None:
    preface = [[f"A Book {number}", f"text {number} goes"] for number in ("i", "ii", "iii", "iv", "v")]
    chapters = [
        [f"Chapter {n // 2}: {'abcdef'[n // 2]} {n}", f"In {n + 1} came", "abcdefghijk"[n]] for n in range(1, 11)
    ]
    pages = without_running_titles(pages_of([*preface, *chapters]))
    assert texts_of(pages) == [[page[1]] for page in preface] + [page[1:] for page in chapters]
