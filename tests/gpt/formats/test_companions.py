"""What is read out of a model card."""

import pytest

from bluejay.gpt.formats.companions import licence_of, purpose_of

FRONT = "---\nlicense: 'apache-2.0'\ntags:\n- text\n---\n"
LONG = "It writes " + "many words " * 40


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ("", ""),
        (FRONT, ""),
        ("# Name\n\n![badge](x.svg)\n\n| a | b |\n|---|---|\n", ""),
        ("Writes _English_ prose. It is small.", "Writes English prose."),
        (
            f"{FRONT}# Ada\n\nA model by [us](https://example.org) of 2.5 M parameters. More.",
            "A model by us of 2.5 M parameters.",
        ),
        (
            f"{FRONT}# Ada\n\nFirst.\n\n## Intended uses & limitations\n\n- Code in `Python`.\n- Prose.\n",
            "Code in Python.",
        ),
        ("# Ada\n\nFirst.\n\n### Direct Use\n\n<!-- by hand -->\n\nFor *tests*, so: good.\n", "For tests, so: good."),
        ("# Ada\n\nFirst.\n\n## How to cite\n\nSo.\n", "First."),
        ("# Ada\n\nFirst.\n\n## Usage\n\n```python\nload()\n```\n", "First."),
        ('---\ndescription: "Answers questions."\n---\n# Ada\n\nFirst.\n', "Answers questions."),
        ("---\nlicense: mit\nno end of it", "--- license: mit no end of it"),
    ],
)
def test_purpose_is_a_sentence_of_the_card(card, said):
    assert purpose_of(card) == said


def test_a_long_purpose_is_cut_between_words():
    said = purpose_of(LONG)
    kept = said.removesuffix(" …")
    assert 140 < len(kept) < len(said) <= 162 and LONG.startswith(f"{kept} ")


def test_licence_is_that_of_the_front_matter(tmp_path):
    assert licence_of(tmp_path) is None
    for card, licence in ((FRONT, "apache-2.0"), ("# Ada\n\nlicense: mit\n", None)):
        (tmp_path / "README.md").write_text(card)
        assert licence_of(tmp_path) == licence
