"""What a model's directory holds beside weights and tokenizer, which every copy of the model keeps."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CARD = "README.md"
TRAINED_ON = "trained_on.json"
"""What a model was trained on (`bluejay.train.checkpoint.trained_on`)."""
KEPT_FILES = re.compile(r"trained_on\.json|README\.md|(LICEN[SC]E|NOTICE|COPYING|USE_POLICY)(\.\w+)?", re.IGNORECASE)
MAX_BYTES = 1_000_000
"""Larger files of these names are not what they claim to be."""


@dataclass(frozen=True)
class Companions:
    """The model's card, its licence, the defaults for generating, and what it was trained on."""

    generation: Mapping[str, Any] = field(default_factory=dict)
    """The contents of generation_config.json, with the ids in config.json that it lacks."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Name -> contents of the card, of files that state a licence, and of the file on what it was trained on."""


def companions_of(path: Path) -> Companions:
    """Read the companions in a model's directory. Raises ValueError, naming the file, if one is no JSON object."""
    generation, config = (json_object(path / name) for name in ("generation_config.json", "config.json"))
    ids = {key: config[key] for key in ("bos_token_id", "pad_token_id") if config.get(key) is not None}
    given = {key: value for key, value in generation.items() if value is not None and key != "_from_model_config"}
    kept = (file for file in sorted(path.iterdir()) if KEPT_FILES.fullmatch(file.name) and file.is_file())
    return Companions(ids | given, {file.name: file.read_bytes() for file in kept if file.stat().st_size < MAX_BYTES})


def json_object(file: Path) -> dict[str, Any]:
    """The contents of a JSON file, empty if there is none. Raises ValueError if it is no object."""
    try:
        values = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        values = None
    if not isinstance(values, dict):
        raise ValueError(f"{file}: it is not a JSON object")
    return values


def licence_of(path: Path) -> str | None:
    """The licence in the front matter of the model card (`license: apache-2.0`); None if there is none."""
    card = path / CARD
    if not card.is_file():
        return None
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines()
    front = lines[1 : lines.index("---", 1)] if lines[:1] == ["---"] and "---" in lines[1:] else []
    return next((line.partition(":")[2].strip() for line in front if line.startswith("license:")), None)
