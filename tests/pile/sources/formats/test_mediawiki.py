"""Articles of a dump come out as what a reader reads."""

import bz2
from collections.abc import Callable

import pytest

from bluejay.pile.sources.formats.mediawiki import MediaWiki, plain_text

DUMP = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="en">
  <siteinfo><sitename>Wikipedia</sitename><base>https://en.wikipedia.org/wiki/Main_Page</base></siteinfo>
{}</mediawiki>
"""
PAGE = """  <page><title>{title}</title><ns>{ns}</ns><id>1</id>{extra}
    <revision><id>77</id><timestamp>2020-03-01T00:00:00Z</timestamp>
<text bytes="9" xml:space="preserve">{text}</text></revision>
  </page>
"""


def page(title: str, text: str, ns: int = 0, extra: str = "") -> str:
    return PAGE.format(title=title, text=text, ns=ns, extra=extra)


def test_articles_and_nothing_else(parsed: Callable) -> None:
    pages = [
        page("Café &amp; Bar", "The &quot;'''café'''&quot; is a [[house|place]]."),
        page("Talk:Café", "No article.", ns=1),
        page("Cafe", "#REDIRECT [[Café]]", extra='<redirect title="Café" />'),
        page("Broken", "<b>"),
        page("Second", "Text."),
    ]
    documents, aside = parsed(
        MediaWiki(path="x", licence="CC-BY-SA-4.0"), bz2.compress(DUMP.format("".join(pages)).encode())
    )
    assert [document.text for document in documents] == ['Café & Bar\n\nThe "café" is a place.', "Second\n\nText."]
    assert documents[0].url == "https://en.wikipedia.org/wiki/Caf%C3%A9_%26_Bar"
    assert documents[0].licence == "CC-BY-SA-4.0"
    assert documents[0].meta == {"title": "Café & Bar", "date": "2020-03-01T00:00:00Z", "revision": "77"}
    assert [entry.name for entry in aside] == ["file#1"]


def test_a_cut_dump_keeps_its_articles(parsed: Callable) -> None:
    packed = bz2.compress(DUMP.format("".join(page(f"{n}", f"Text {n}.") for n in range(3))).encode())
    whole = DUMP.format("".join(page(f"{n}", f"Text {n}.") for n in range(3))).encode()
    assert len(parsed(MediaWiki(path="x"), packed)[0]) == 3
    documents, aside = parsed(MediaWiki(path="x"), whole[:-60])
    assert [document.meta["title"] for document in documents] == ["0", "1"]
    assert "the file ends within <page>" in aside[0].reason


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("{{Infobox|a={{b|[[c]]}}|d}}Text{{cn}}.<ref name=x>Note {{cite}}</ref><ref name=x /> More.", "Text. More."),
        ("One<!-- no -->.\n{| class=x\n|-\n| [[a]] || {{b}}\n{| \n| inner\n|}\n|}\nTwo.", "One.\n\nTwo."),
        ("[[File:A.jpg|thumb|A [[caption]]]]See [[B (film)|B]] and [[C]]s.[[Category:D]] [[fr:E]]", "See B and Cs."),
        ("''It'' is [http://a.b a link], [http://c.d], and http://e.f.", "It is a link, , and http://e.f."),
        ("Name ({{IPAc-en|x}}; {{lang}}) is.", "Name is."),
        ("Where <math>x < y</math> &ndash; <nowiki>[[z]]</nowiki> a<br />b", "Where x < y – [[z]] a\nb"),
        ("A.\n\n== Full ==\nText.\n=== Empty ===\n{{x}}\n== Also empty ==\n* {{y}}\n", "A.\n\nFull\n\nText."),
        ("== All ==\n=== Of ===\n==== It ====\n{{none}}", ""),
        ("* one\n* two {{x}}\n*\n* three\n** four\n", "- one\n- two\n- three\n  - four"),
        ("A <code>f()</code>, g() or <code><nowiki>[[x]]</nowiki> &lt;br&gt;</code>.", "A f(), g() or [[x]] <br>."),
        (
            "Use\n<syntaxhighlight lang=py>\ndef f():\n    '''No.'''\n\n    return {}  # &lt;\n</syntaxhighlight>\nto.",
            "Use\n\ndef f():\n    '''No.'''\n\n    return {}  # &lt;\n\nto.",
        ),
        ("<pre>\na &lt; b\n\n  c</pre>", "a < b\n\n  c"),
        ("Ada ({{lang-en|Ada}}; {{IPAc-en|x}}; born 1) ({{y}}; 2) (3, {{z}}).", "Ada (Ada; born 1) (2) (3)."),
        ("One<p>two</p><ul><li>three</li><li>four</li></ul>", "One\n\ntwo\n\n- three\n\n- four"),
        ("-{zh-hans:计算机; zh-hant:電腦}--{H|zh-cn:内存}- -{R|a}-", "计算机 a"),
    ],
)
def test_markup(markup: str, text: str) -> None:
    assert plain_text(markup) == text


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        (
            "In [[wikt:wide|wide]] [[s:The Raven|The Raven]], [[Batman:Year One|it]] and [[Mission:Impossible]].",
            "In wide The Raven, it and Mission:Impossible.",
        ),
        (
            "See [[:Category:Towns]] and [[:File:A.jpg|this]] and [[:de:Brot]].",
            "See Category:Towns and this and de:Brot.",
        ),
        ("A[[Category:B]][[file : c.jpg|thumb|d]][[Datei:E.JPG|mini|f]][[de:G]][[zh-min-nan:H]][[Image:i.svg]]", "A"),
        (
            "It is {{convert|93|m|ft}} high, {{Convert|5|to|10|km|mi|abbr=on}} long, {{convert|3|km2}}.",
            "It is 93 m high, 5 to 10 km long, 3 km².",
        ),
        (
            "{{formatnum:1234}} {{lang|la|turris}}, {{lang-de|Brot}}, {{nowrap|10 km}}, {{nowrap|1={{val|5|u=s}}}}.",
            "1234 turris, Brot, 10 km, 5 s.",
        ),
        (
            "{{As of|2020|3}}, {{nihongo|Kyō|今日}} {{langx|fr|jour}} {{chem|H|2|O}} {{SS|Iowa}} {{quote|text=Q}}",
            "As of March 2020, Kyō jour H2O SS Iowa Q",
        ),
        (
            "Au {{s-|XIX|e}} et au {{Ier siècle}}, le {{1er}} mai, {{-s|V}}, {{s2|XVI|e|XVII|e}}, {{Lien|fr=A}}.",
            "Au XIXe siècle et au Ier siècle, le 1er mai, Ve siècle av. J.-C., XVIe et XVIIe siècles, A.",
        ),
        ("{{仮リンク|東の町|en|East}}、{{link-en|城|Castle}} {{s|1812 год}}", "東の町、城 1812 год"),
        (
            "The vowel {{IPA|/a/}}, {{angbr|a}} or {{vr|o}}: {{enS|day}} ({{IPA|fr|ʒuʁ}}; {{transl|ru|GOST|den}}).",
            "The vowel /a/, ⟨a⟩ or ⟨o⟩: day (den).",
        ),
        (
            "{{nuclide|lithium|7}} weighs 1.17{{e|-26}}&nbsp;kg; A{{music|flat}}{{spaces|2}}{{Keypress|[[Ctrl]]|C}}",
            "lithium-7 weighs 1.17×10^-26 kg; A♭ Ctrl+C",
        ),
        (
            "At {{Coord|13|19|N|169|9|W|type:a}}, {{coord|4.1|N|8|E|display=inline,title}}.{{coord|1|N|2|W|display=t}}",
            "At 13°19′N 169°9′W, 4.1°N 8°E.",
        ),
        ("{{cvt|6|ft|2|in|cm}}{{snd}}two {{transl|ja|kana}} {{unknown|x}}end.", "6 ft 2 in – two kana end."),
    ],
)
def test_links_and_templates_that_are_part_of_a_sentence(markup: str, text: str) -> None:
    assert plain_text(markup) == text


def test_a_dump_names_its_namespaces(parsed: Callable) -> None:
    named = '<namespace key="6" case="x">Plik</namespace><namespace key="14">Kategoria</namespace>'
    article = page("A", "B[[Plik:C|D]][[kategoria:E]] [[Film:F]].")
    dump = f"<mediawiki><siteinfo><namespaces>{named}</namespaces></siteinfo>{article}</mediawiki>"
    ((document,), _) = parsed(MediaWiki(path="x"), dump.encode())
    assert document.text == "A\n\nB Film:F."


def test_old_exports_have_the_namespace_in_the_title(parsed: Callable) -> None:
    pages = [
        page(title, text).replace("<ns>0</ns>", "")
        for title, text in (
            ("Bread", "One."),
            ("Talk:Bread", "No."),
            ("User talk:A", "No."),
            ("Mission: B", "Two."),
            ("C", "#REDIRECT [[Bread]]"),
            ("D", "#weiterleitung [[Bread]]"),
        )
    ]
    documents, aside = parsed(MediaWiki(path="x"), DUMP.format("".join(pages)).encode())
    assert [document.text for document in documents] == ["Bread\n\nOne.", "Mission: B\n\nTwo."]
    assert not aside


def test_gaps_take_time_in_proportion_to_their_length() -> None:
    assert plain_text("a" + " " * 20_000 + "b{{c}}d") == "a bd"
