"""EuroParl in its three forms."""

from collections.abc import Callable

from bluejay.pile.sources.formats.parallel import UNITS_PER_DOCUMENT, Parallel

RELEASED = """<CHAPTER ID=1>
Resumption of the session
<SPEAKER ID=1 LANGUAGE="DE" NAME="President">
I declare resumed the session &amp; more.
<P>
You have requested a debate.
<SPEAKER ID=2 NAME="Díez González">
Yes < no.
"""
MARKED = """<?xml version="1.0" encoding="utf-8"?>
<text><CHAPTER ID="1"><P id="1"><s id="1"><w id="1.1">Resumption</w><w>,</w> <w>it</w><w>'s</w> <w>one</w></s></P>
<SPEAKER ID="1" NAME="President"><P id="2"><s id="2">I declare.</s> <s id="3">You have.</s></P></SPEAKER></CHAPTER>
</text>"""
MEMORY = """<?xml version="1.0" encoding="UTF-8" ?><tmx version="1.4"><header srclang="en"/><body>{}</body></tmx>"""
UNIT = '<tu><tuv xml:lang="en"><seg>One {0}</seg></tuv><tuv xml:lang="DE"><seg>Eins &amp; {0}</seg></tuv></tu>'


def test_as_it_is_released(parsed: Callable) -> None:
    (document,), _ = parsed(Parallel(path="x"), RELEASED.encode(), "txt/en/ep-00-01-17.txt")
    assert document.text.split("\n") == [
        "Resumption of the session",
        "President",
        "I declare resumed the session & more.",
        "You have requested a debate.",
        "Díez González",
        "Yes < no.",
    ]
    assert document.meta == {"language": "en", "date": "2000-01-17"}
    assert (
        parsed(Parallel(path="x"), RELEASED.encode(), "txt/da/ep-96-04-15-001.txt")[0][0].meta["date"] == "1996-04-15"
    )


def test_as_opus_marks_it(parsed: Callable) -> None:
    (document,), _ = parsed(Parallel(path="x"), MARKED.encode(), "xml/en/ep-00-01-17.xml")
    assert document.text == "Resumption, it's one\nPresident\nI declare. You have."


def test_a_translation_memory(parsed: Callable) -> None:
    many = UNITS_PER_DOCUMENT + 1
    cut = MEMORY.format(UNIT.format(1) + "<tu><tuv></tu>" + UNIT.format(2)).encode()[:-60]
    documents, aside = parsed(Parallel(path="x"), cut)
    assert [document.text for document in documents] == ["One 1", "Eins & 1"]
    assert len(aside) == 2
    memory = MEMORY.format("".join(UNIT.format(number) for number in range(many)))
    for data in (memory.encode(), memory.replace("UTF-8", "UTF-16").encode("utf-16")):
        documents, aside = parsed(Parallel(path="x"), data)
        assert not aside
        assert [document.meta["language"] for document in documents] == ["en", "de", "en", "de"]
        english, german = (
            [line for document in documents[start::2] for line in document.text.split("\n")] for start in (0, 1)
        )
        assert english == [f"One {number}" for number in range(many)]
        assert german == [f"Eins & {number}" for number in range(many)]


def test_markup_of_programs_is_no_part_of_a_segment(parsed: Callable) -> None:
    unit = '<tu><tuv xml:lang="en"><seg>A <bpt i="1">&lt;b&gt;</bpt>word<ept i="1">&lt;/b&gt;</ept></seg></tuv></tu>'
    ((document,), _) = parsed(Parallel(path="x"), MEMORY.format(unit).encode())
    assert document.text == "A word"
