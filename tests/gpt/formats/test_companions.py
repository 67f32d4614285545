"""What is read out of a model card, and what copies keep of the defaults for generating."""

import json
import time

import pytest

from bluejay.gpt.formats.companions import companions_of, licence_of, purpose_of
from bluejay.gpt.formats.layouts import convert
from tests.gpt.formats.test_what_files_say import directory, set_json

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


@pytest.mark.parametrize("part", ["<!--", "[", "<", "```\n<!--"])
def test_a_hostile_card_takes_no_time(part):
    before = time.process_time()
    purpose_of(part * 250_000)
    purpose_of(f"---\ndescription: {part.strip()[-1] * 500_000}\n---\n")
    assert time.process_time() - before < 2


SAMPLING = {"temperature": 0.7, "top_k": 40, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.1}


def test_sampling_defaults_survive_a_gguf_file(byte_tokenizer, tmp_path):
    path = directory(tmp_path / "m", "gpt2", byte_tokenizer)
    set_json(path / "generation_config.json", **SAMPLING)
    convert(path, tmp_path / "m.gguf")
    convert(tmp_path / "m.gguf", tmp_path / "copy")
    assert json.loads((tmp_path / "copy" / "generation_config.json").read_text()).items() >= SAMPLING.items()


def test_the_licence_and_its_name_survive_a_gguf_file(byte_tokenizer, tmp_path):
    path = directory(tmp_path / "m", "gpt2", byte_tokenizer)
    front = "---\nlicense: other\nlicense_name: our-own\nlicense_link: https://example.org/licence\n---\n"
    (path / "README.md").write_text(f"\ufeff{front}# A model\n")  # editors of Windows put a mark in front
    convert(path, tmp_path / "m.gguf")
    convert(tmp_path / "m.gguf", tmp_path / "copy")
    assert (tmp_path / "copy" / "README.md").read_text() == front
    assert licence_of(path) == licence_of(tmp_path / "copy") == "other"


def test_old_models_state_their_sampling_defaults_in_config_json(tmp_path):
    stated = {"temperature": 0.7, "top_k": 50, "do_sample": False, "max_length": 100, "bos_token_id": 1}
    (tmp_path / "config.json").write_text(json.dumps(stated))
    assert companions_of(tmp_path).generation == {"temperature": 0.7, "max_length": 100, "bos_token_id": 1}
    # transformers takes nothing of generating from config.json beside this file.
    (tmp_path / "generation_config.json").write_text(json.dumps({"top_k": 3}))
    assert companions_of(tmp_path).generation == {"top_k": 3, "bos_token_id": 1}
