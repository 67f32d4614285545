"""Languages are identified without a network, by a model that a package contains."""

import socket

import pyarrow as pa
import pytest

from bluejay.pile.filters import chain
from bluejay.pile.filters.language import language, load_model

TEXTS = {
    "en": "All human beings are born free and equal in dignity and rights.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits.",
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и правах.",
    "zh": "人人生而自由，在尊严和权利上一律平等。",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
}
"""Article 1 of the Universal Declaration of Human Rights."""


def test_languages_are_identified_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("a language was looked for on the network")

    load_model.cache_clear()
    monkeypatch.setattr(socket.socket, "connect", refused)
    assert [name for name, _ in map(language, TEXTS.values())] == list(TEXTS)


def test_reasons_name_the_language() -> None:
    texts = pa.array([TEXTS["en"], TEXTS["de"], TEXTS["fr"], "0 1 2 3 4 x y", ""])
    _, reasons = chain(["language:en,de>0.5"], seed=0)(texts)
    assert reasons.to_pylist()[:3] == [None, None, "language: fr"]
    assert all(reason.startswith("language: ") for reason in reasons.to_pylist()[3:])


def test_a_long_text_is_judged_by_its_middle() -> None:
    text = "\n".join([*["* * *"] * 2000, *[TEXTS["en"]] * 100, *["* * *"] * 2000])
    name, score = language(text)
    assert (name, score > 0.8) == ("en", True)
