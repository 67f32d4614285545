"""What a model's directory holds beside weights and tokenizer, which every copy of the model keeps."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bluejay.tokenizer_files import json_object

CARD = "README.md"
LICENCE_KEYS = ("license", "license_name", "license_link")
"""Entries of a card's front matter that state the licence; the latter two tell what `other` means."""
TRAINED_ON = "trained_on.json"
"""What a model was trained on (`bluejay.train.checkpoint.trained_on`)."""
TUNED_LENS = "tuned_lens.safetensors"
"""The tuned lens of a model (`bluejay.lens.layers`), which is no part of its weights."""
KEPT_FILES = re.compile(r"trained_on\.json|README\.md|(LICEN[SC]E|NOTICE|COPYING|USE_POLICY)(\.\w+)?", re.IGNORECASE)
USES = re.compile(r"\b(uses?|usage|good for|purpose)\b", re.IGNORECASE)
"""Titles of sections of a card that say what a model is for."""
MAX_PURPOSE = 160
"""Characters of the sentence that says it."""
READ_CHARACTERS, SECTION_CHARACTERS = 20_000, 4_000
"""Characters of a card, and of a section of it, in which the sentence is looked for."""
MAX_BYTES = 1_000_000
"""Larger files of these names are not what they claim to be."""

GENERATION_DEFAULTS: dict[str, Any] = {
    "do_sample": False,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "typical_p": 1.0,
    "repetition_penalty": 1.0,
    "length_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "num_beams": 1,
    "early_stopping": False,
    "max_length": 20,
    "min_length": 0,
    **dict.fromkeys(("min_p", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id")),
}
"""Keys of generation_config.json that old models have in their config.json -> the default of transformers."""


@dataclass(frozen=True)
class Companions:
    """The model's card, its licence, the defaults for generating, and what it was trained on."""

    generation: Mapping[str, Any] = field(default_factory=dict)
    """The contents of generation_config.json, with the ids in config.json that it lacks; without that file what
    config.json says of generating."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Name -> contents of the card, of files that state a licence, and of the file on what it was trained on."""


def companions_of(path: Path) -> Companions:
    """Read the companions in a model's directory. Raises ValueError, naming the file, if one is no JSON object."""
    generation, config = (json_object(path / name) for name in ("generation_config.json", "config.json"))
    ids = {key: config[key] for key in ("bos_token_id", "pad_token_id") if config.get(key) is not None}
    old = {} if generation else config
    stated = {key: old[key] for key, default in GENERATION_DEFAULTS.items() if old.get(key) not in (None, default)}
    given = {key: value for key, value in generation.items() if value is not None and key != "_from_model_config"}
    kept = (file for file in sorted(path.iterdir()) if KEPT_FILES.fullmatch(file.name) and file.is_file())
    files = {file.name: file.read_bytes() for file in kept if file.stat().st_size < MAX_BYTES}
    return Companions(stated | ids | given, files)


def card_of(path: Path) -> str:
    """The model card in a model's directory; empty where there is none."""
    card = path / CARD
    return card.read_text(encoding="utf-8-sig", errors="replace") if card.is_file() else ""


def front_matter(card: str) -> tuple[dict[str, str], str]:
    """The values of one line in a card's front matter, by their keys, and the text after it."""
    lines = card.splitlines()
    if lines[:1] != ["---"] or "---" not in lines[1:]:
        return {}, card
    end = lines.index("---", 1)
    pairs = (line.partition(":") for line in lines[1:end] if not line.startswith((" ", "-", "#")))
    return {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}, "\n".join(lines[end + 1 :])


def purpose_of(card: str) -> str:
    """What a model is good for, in a sentence of its card: a `description` in the front matter, else the beginning of
    the section on its uses, else that of the first text; empty where there is none."""
    values, whole = front_matter(card)
    text = re.sub(r"^(```|~~~).*?^\1|<!--.*?-->", "", whole[:READ_CHARACTERS], flags=re.M | re.S)
    sections = re.split(r"^#+ *(.*)$", text, flags=re.M)
    used = [body for title, body in zip(sections[1::2], sections[2::2], strict=True) if USES.search(title)]
    said = (first_prose(body) for body in (values.get("description", ""), *used, *sections[::2]))
    return next(filter(None, said), "")


def first_prose(text: str) -> str:
    """The first sentence of a Markdown text, without marks; a longer one than a screen shows at once is cut."""
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*(?:[-+*]|\d+\.)\s)", text[:SECTION_CHARACTERS]):
        kept = [line for line in paragraph.splitlines() if not line.lstrip().startswith(("|", ">", "#", "<", "!["))]
        plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)|<[^>]*>|[*_`]{1,3}(?=\S)|(?<=\S)[*_`]{1,3}", r"\1", " ".join(kept))
        words = " ".join(re.sub(r"^\s*([-+*]|\d+\.)\s+", "", plain).split())
        sentence = re.split(r"(?<=[.!?])\s+(?=[A-Z0-9])", words, maxsplit=1)[0]
        if re.search(r"\w", sentence):
            whole = len(sentence) <= MAX_PURPOSE
            return sentence if whole else sentence[:MAX_PURPOSE].rpartition(" ")[0].rstrip(",;: ") + " …"
    return ""


def card_stating(stated: Mapping[str, str]) -> bytes:
    """A card that has only front matter."""
    lines = (f"{key}: {' '.join(value.split())}" for key, value in stated.items())
    return "\n".join(["---", *lines, "---", ""]).encode()


def licence_of(path: Path) -> str | None:
    """The licence in the front matter of the model card (`license: apache-2.0`); None if there is none."""
    return front_matter(card_of(path))[0].get("license")
