"""Cards: the strongest places of a corpus, with their documents."""

import numpy as np
import pytest
import torch

from bluejay.lens.cards import Passage, head_card, neuron_card, passages
from bluejay.native import native
from bluejay.notebook import visible
from bluejay.trace.document_rows import Row
from bluejay.trace.index import Index
from bluejay.trace.indexing import index
from bluejay.trace.tracing import Source, Tracer
from tests.trace.conftest import write_corpus

TEXTS = [f"the cat number {n} sat on the mat {n * n} times" for n in range(12)]


@pytest.fixture
def made_passages(byte_tokenizer) -> list[Passage]:
    rows = [Row(f"{n:064x}", "all", f"source {n}", "MIT", f"https://example.org/{n}") for n in range(12)]
    ids = [torch.tensor(byte_tokenizer.encode(text)[:20]) for text in TEXTS]
    return [Passage(one, "c", "train", 100 * n, rows[n]) for n, one in enumerate(ids)]


def test_a_neurons_examples_are_where_it_is_strongest(lens, made_passages):
    card = neuron_card(lens, made_passages, 1, 3, examples=3)
    name = "blocks.1.mlp.hook_post"
    values = [lens.run(one.tokens[None], [name])[name][0, :, 3] for one in made_passages]
    peaks = sorted((float(value.max()) for value in values), reverse=True)
    assert [one.value for one in card.strongest] == pytest.approx(peaks[:3], abs=1e-5)
    best = max(range(12), key=lambda n: float(values[n].max()))
    at = int(values[best].argmax())
    first = card.strongest[0]
    assert (first.position, first.url) == (100 * best + at, f"https://example.org/{best}")
    assert (first.before + first.token + first.after) in TEXTS[best] and first.document == f"{best:064x}"
    every = torch.cat(values)
    assert card.tokens == len(every) and card.active == pytest.approx(float((every > 0).double().mean()))
    assert card.quantiles["50.0%"] == pytest.approx(float(np.quantile(every.numpy(), 0.5)), abs=1e-5)
    assert len(card.promoted) == len(card.suppressed) == 10
    shown = card._repr_html_()
    assert f'href="https://example.org/{best}"' in shown and f"example.org/{best}" in card.text()
    assert all(f">{kind}<" in shown for kind in ("strongest", "half", "random", "MIT"))
    assert f"Promotes <code>{visible(card.promoted[0])}</code>" in shown and "Suppresses <code>" in shown


def test_a_heads_examples_say_what_it_looked_at(lens, made_passages):
    card = head_card(lens, made_passages, 0, 1, examples=2)
    assert all(one.looked_at and len(one.promoted) == 5 for one in card.strongest)
    assert card.strongest[0].value >= card.strongest[1].value >= card.middling[0].value


def test_an_address_that_is_no_web_page_is_not_linked(lenses, made_passages):
    document = Row("0" * 64, "all", "<b>", "MIT", "javascript:alert(1)")
    passage = Passage(made_passages[0].tokens, "c", "train", 0, document)
    shown = neuron_card(lenses["gptj"], [passage], 0, 0)._repr_html_()
    assert "javascript" not in shown and "&lt;b&gt;" in shown


def test_control_characters_of_a_corpus_do_not_reach_the_terminal(lenses, byte_tokenizer):
    tokens = torch.tensor(byte_tokenizer.encode("the\x1b[2Jcat\r\nsat")[:20])
    passage = Passage(tokens, "c", "train", 0, Row("0" * 64, "all", "a\x1b[31m", "MIT", ""))
    shown = neuron_card(lenses["gptj"], [passage], 0, 0).text()
    assert "a\\x1b[31m" in shown and "⏎" in shown and "\x1b" not in shown and "\r" not in shown


@pytest.mark.skipif(not hasattr(native, "first_rows"), reason="built without the native part")
def test_passages_are_in_one_document_of_the_corpus(tmp_path, byte_tokenizer, monkeypatch):
    monkeypatch.setenv("BLUEJAY_CACHE", str(tmp_path / "cache"))
    documents = [[*byte_tokenizer.encode(text), byte_tokenizer.eot] for text in TEXTS]
    known = [{"url": f"https://example.org/{n}"} for n in range(12)]
    corpus = write_corpus(tmp_path / "c", {"train": documents}, rows={"train": known})
    byte_tokenizer.save(corpus)
    index(corpus)
    tracer = Tracer([Source(Index(corpus))], byte_tokenizer)
    found = list(passages(tracer, 400, length=16))
    assert len(found) == 25 and all(len(one.tokens) == 16 for one in found)
    flat = [id for document in documents for id in document]
    starts = np.cumsum([0, *map(len, documents)])
    for one in found:
        assert flat[one.position : one.position + 16] == one.tokens.tolist()
        number = int(np.searchsorted(starts, one.position, "right")) - 1
        assert one.position + 16 <= starts[number + 1] and one.document.url == f"https://example.org/{number}"
    assert [one.position for one in passages(tracer, 400, length=16)] == [one.position for one in found]
    index(blank := write_corpus(tmp_path / "blank", {"train": [[]]}))
    assert list(passages(Tracer([Source(Index(blank))], byte_tokenizer), 400)) == []


def test_what_is_not_there_is_said(lenses, made_passages):
    with pytest.raises(ValueError, match="there is no neuron 64; a layer of this model has the neurons 0 to 63"):
        neuron_card(lenses["gptj"], made_passages, 0, 64)
    with pytest.raises(ValueError, match="there is no head 2"):
        head_card(lenses["gptj"], made_passages, 0, 2)
    with pytest.raises(ValueError, match="there is no text to make a card of"):
        neuron_card(lenses["gptj"], [], 0, 0)
