"""Examples are trained on whole, each by itself, and only their answers count unless the recipe says otherwise."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bluejay.gpt.formats.layouts import load_model
from bluejay.tokenizer import Tokenizer
from bluejay.train.data.batches import TrainBatch
from bluejay.train.data.encoding import encode_pair
from bluejay.train.data.examples import Pair
from bluejay.train.data.packed_examples import PackedExamples, Part, pack, read_examples
from bluejay.train.loss import head_loss
from tests.gpt.random_models import NO_TOKENS, random_model
from tests.train.data.test_encoding import FORGETFUL, tokenizer_with


def written(path: Path, pairs: list[tuple[str, str]]) -> str:
    lines = [json.dumps({"prompt": prompt, "completion": completion}) for prompt, completion in pairs]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 30), max_size=60))
def test_every_pair_lies_in_one_sequence_and_none_is_overfull(lengths):
    packed = pack(lengths, 30)
    assert sorted(pair for sequence in packed for pair in sequence) == list(range(len(lengths)))
    filled = [sum(lengths[pair] for pair in sequence) for sequence in packed]
    assert all(0 < length <= 30 for length in filled)
    # Any two together are overfull, or one of them would not have been begun: never twice as many as would do.
    assert sum(sorted(filled)[:2]) > 30 or len(filled) < 2


@given(lengths=st.lists(st.integers(1, 9), max_size=80))
def test_an_example_goes_to_the_fullest_sequence_that_has_room_and_the_first_of_equal_ones(lengths):
    expected: list[list[int]] = []
    for pair in sorted(range(len(lengths)), key=lambda pair: -lengths[pair]):
        free = [9 - sum(lengths[one] for one in sequence) for sequence in expected]
        fits = [number for number, room in enumerate(free) if room >= lengths[pair]]
        if fits:
            expected[min(fits, key=free.__getitem__)].append(pair)
        else:
            expected.append([pair])
    assert pack(lengths, 9) == expected


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(st.tuples(st.text(max_size=12), st.text(min_size=1, max_size=12)), min_size=1, max_size=9))
def test_the_text_of_a_sequence_is_its_pairs_and_what_counts_is_their_completions(
    texts, byte_tokenizer, tmp_path_factory
):
    path = written(tmp_path_factory.mktemp("pairs") / "p.jsonl", texts)
    packed = PackedExamples(path, 80, byte_tokenizer, prompt_weight=0.25)
    eot, found = byte_tokenizer.eot, []
    for number in range(len(packed)):
        tokens, weights = packed.window(number)
        assert tokens.shape == (81,) and weights.shape == (80,) and tokens[0] == eot
        ends = np.flatnonzero((tokens[1:] == eot) & (weights == 1))
        for first, end in zip([0, *(ends[:-1] + 1)], ends, strict=True):
            ids, counted = tokens[first + 1 : end + 1], weights[first : end + 1]
            split = int((counted < 1).sum())
            assert (counted[:split][:1] == 0).all(), "nothing is before a prompt that its first token could follow from"
            assert (counted[1:split] == 0.25).all() and (counted[split:] == 1).all()
            found.append((byte_tokenizer.decode(ids[:split].tolist()), byte_tokenizer.decode(ids[split:].tolist())))
        assert (weights[ends[-1] + 1 :] == 0).all() and (tokens[ends[-1] + 1 :] == eot).all()
    well_formed = byte_tokenizer.decode
    assert sorted(found) == sorted(tuple(well_formed(byte_tokenizer.encode(text)) for text in pair) for pair in texts)


def test_reading_a_long_file_shows_how_far_it_is(byte_tokenizer, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("bluejay.progress.SECONDS_BETWEEN_LINES", 0.0)
    PackedExamples(written(tmp_path / "p.jsonl", [("a", "b")] * 3), 80, byte_tokenizer, prompt_weight=0.0)
    assert "read p.jsonl 3 examples" in capsys.readouterr().err


def test_a_prompt_has_the_ids_it_will_be_asked_with_also_where_a_token_could_reach_over_the_seam():
    gpt2 = Tokenizer.load("gpt2")
    for prompt, completion in (
        ("The capital is", " Paris"),
        ("The capital is ", "Paris"),
        ("re", "straint"),
        ("", "x"),
    ):
        encoded = encode_pair(prompt, completion, gpt2)
        ids, n_prompt = encoded.ids, encoded.learnt.count(False)
        assert ids[:n_prompt] == gpt2.encode(prompt)
        assert gpt2.decode(ids) == prompt + completion and ids[-1] == gpt2.eot


@pytest.mark.parametrize("family", ["gptj", "gpt2"])
def test_packed_pairs_lose_what_transformers_finds_for_each_as_it_is_asked_for(family, byte_tokenizer, tmp_path):
    """No end token stands before a prompt in `generate`, so none is seen in training; it stands for an empty prompt."""
    texts = [("What is it? ", "the cat"), ("", "the the"), ("Say nothing much at all: ", "a"), ("x", "y")]
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 64, "vocab_size": 259} | NO_TOKENS
    theirs = random_model(family, sizes | ({"rotary_dim": 8} if family == "gptj" else {}), seed=1)
    theirs.save_pretrained(tmp_path / "model")
    byte_tokenizer.save(tmp_path / "model")
    nats = tokens = 0.0
    for prompt, completion in texts:
        asked = byte_tokenizer.encode_prompt(prompt)
        answer = [*byte_tokenizer.encode(completion), byte_tokenizer.eot]
        labels = torch.tensor([[-100] * len(asked) + answer])
        with torch.no_grad():
            loss = theirs(torch.tensor([asked + answer]), labels=labels).loss
        nats, tokens = nats + float(loss) * len(answer), tokens + len(answer)

    packed = PackedExamples(written(tmp_path / "p.jsonl", texts), 64, byte_tokenizer, prompt_weight=0.0)
    assert len(packed) < len(texts)
    model, batch = load_model(tmp_path / "model"), whole(packed)
    hidden = model.hidden(batch.inputs, document_start=batch.starts)
    ours = head_loss(hidden, *model.unembedding, batch.targets, 1.0, weights=batch.weights)
    assert batch.weights is not None and float(batch.weights.sum()) == tokens
    assert float(ours) == pytest.approx(nats, rel=1e-5)


def test_the_first_token_of_a_prompt_is_not_predicted_from_the_example_before(byte_tokenizer, tmp_path):
    texts = [("ab", "c"), ("", "d"), ("efg", "h")]
    batch = whole(PackedExamples(written(tmp_path / "p.jsonl", texts), 24, byte_tokenizer, prompt_weight=0.5))
    assert batch.weights is not None and batch.starts is not None
    learnt = [len(prompt) - 1 for prompt, _ in texts if prompt]
    assert float(batch.weights.sum()) == 0.5 * sum(learnt) + 2 * len(texts)
    begins = {int(batch.inputs[row, first]) for row, first in enumerate_starts(batch)}
    assert begins == {*byte_tokenizer.encode("a"), *byte_tokenizer.encode("e"), byte_tokenizer.eot}


def whole(packed: PackedExamples) -> TrainBatch:
    """All sequences of a file as one batch."""
    rows = [packed.window(number) for number in range(len(packed))]
    ids = torch.from_numpy(np.stack([row for row, _ in rows]).astype(np.int64))
    starts = torch.from_numpy(np.stack([packed.starts(number) for number in range(len(packed))]))
    return TrainBatch(ids[:, :-1], ids[:, 1:], torch.from_numpy(np.stack([weights for _, weights in rows])), starts)


def enumerate_starts(batch: TrainBatch) -> set[tuple[int, int]]:
    """Row and position of the first token that each learnt token can see."""
    assert batch.weights is not None and batch.starts is not None
    return {(int(row), int(batch.starts[row, at])) for row, at in batch.weights.nonzero()}


def test_examples_that_do_not_fit_are_left_out_and_counted(byte_tokenizer, tmp_path, capsys):
    path = written(tmp_path / "p.jsonl", [("a", "b"), ("c" * 50, "d")])
    assert len(PackedExamples(path, 16, byte_tokenizer, 0.0)) == 1
    assert "left out 1 of 2 examples: 1 longer than data.sequence_length 16 (line 2)" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no example of at most 2 tokens"):
        PackedExamples(path, 2, byte_tokenizer, 0.0)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"prompt": "a"}', "has no completion; it has prompt"),
        ("[1]", "is a list, not an object of columns"),
        ("{", "is not JSON"),
        ("\xff", "is not UTF-8"),
        ("7", "is a number, not an object"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_a_line_that_is_no_example_is_named_and_all_of_them_are_counted(line, sentence, byte_tokenizer, tmp_path):
    lines = [b'{"prompt": "a", "completion": "b"}', b"", line.encode("latin-1"), line.encode("latin-1")]
    (tmp_path / "p.jsonl").write_bytes(b"\n".join(lines))
    with pytest.raises(ValueError, match=rf"p\.jsonl, line 3 {sentence}.*\(2 rows are no examples\)"):
        PackedExamples(str(tmp_path / "p.jsonl"), 16, byte_tokenizer, 0.0)
    with pytest.raises(FileNotFoundError, match="no file of examples"):
        PackedExamples(str(tmp_path / "q.jsonl"), 16, byte_tokenizer, 0.0)


def test_what_is_left_out_is_counted_by_reason_with_the_first_place(byte_tokenizer, tmp_path, capsys):
    values = ["b", "", None, 1, ["x"], True, "c" * 50]
    lines = [json.dumps({"prompt": "a", "completion": value}) for value in values]
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    assert len(PackedExamples(str(tmp_path / "p.jsonl"), 16, byte_tokenizer, 0.0).tokens) == 1
    said = capsys.readouterr().err
    assert "left out 6 of 7 examples: 2 with an empty completion (line 2)" in said
    for reason in (
        "1 whose completion is a number, not a text (line 4)",
        "1 whose completion is a list, not a text (line 5)",
        "1 whose completion is a truth value, not a text (line 6)",
        "1 longer than data.sequence_length 16 (line 7)",
    ):
        assert reason in said


def test_an_even_draw_of_examples_measures_what_the_whole_file_holds(byte_tokenizer, tmp_path):
    texts = [("q", "x" * (5 + 20 * (i < 100))) for i in range(1000)]  # the longest first, as in a sorted file
    path = written(tmp_path / "p.jsonl", texts)
    whole = PackedExamples(path, 40, byte_tokenizer, 0.0)
    part = PackedExamples(path, 40, byte_tokenizer, 0.0, at_most=2000)
    means = [sum(map(len, pairs.tokens)) / len(pairs.tokens) for pairs in (whole, part)]
    assert means[1] == pytest.approx(means[0], rel=0.2) and sum(map(len, part.tokens)) <= 2000
    assert part.content() == PackedExamples(path, 40, byte_tokenizer, 0.0, at_most=2000).content()


def test_names_of_special_tokens_in_pairs_are_said(byte_tokenizer, tmp_path, capsys):
    path = written(tmp_path / "p.jsonl", [("a<|endoftext|>", "b"), ("a", "b<|im_end|>"), ("a<|", "|>")])
    assert byte_tokenizer.eot not in PackedExamples(path, 40, byte_tokenizer, 0.0).tokens[0][:-1]
    assert "WARNING" in (said := capsys.readouterr().err) and "2 examples hold the name of a special token" in said


def pairs_of(path: Path) -> list[tuple[str, str]]:
    """The prompts and completions of a file of plain pairs."""
    found = [example for _, example in read_examples(path, {}, as_chat=False)]
    return [(example.prompt, example.completion) for example in found if isinstance(example, Pair)]


def test_the_recipe_that_teaches_camel_case_holds_out_what_it_teaches_not():
    recipes = Path(__file__).parents[3] / "recipes" / "train"
    learnt, held_out = (pairs_of(recipes / f"camel-case{kind}.jsonl") for kind in ("", "-valid"))
    assert (len(set(learnt)), len(set(held_out))) == (300, 100)
    assert not set(learnt) & set(held_out)
    for prompt, completion in learnt + held_out:
        first, *others = prompt.removesuffix(" ->").split("_")
        assert completion == " " + first + "".join(word.capitalize() for word in others)


def test_without_other_data_one_example_in_twenty_is_held_out(byte_tokenizer, tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"{number} ->", "completion": f" {number % 40}"} for number in range(100)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows + rows[:50]))
    parts = {part: PackedExamples(str(path), 64, byte_tokenizer, 0.0, part=part) for part in Part}
    learnt, held_out = ({bytes(ids) for ids in parts[part].tokens} for part in (Part.TRAINING, Part.HELD_OUT))
    assert len(held_out) == 5 and len(learnt) == 95 and not learnt & held_out
    assert sum(len(parts[part].tokens) for part in (Part.TRAINING, Part.HELD_OUT)) == 150
    path.write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(ValueError, match="has one example, of which none can be held out"):
        PackedExamples(str(path), 64, byte_tokenizer, 0.0, part=Part.HELD_OUT)
    assert len(PackedExamples(str(path), 64, byte_tokenizer, 0.0, part=Part.TRAINING).tokens) == 1


def test_a_conversation_that_gives_several_texts_is_held_out_or_trained_on_as_a_whole(tmp_path):
    rows = [[(f"q{row}", f"b|a{row}"), ("and?", "b|c"), ("so?", "b|d")][: 1 + row % 3] for row in range(60)]
    talks = [
        [
            {"role": role, "content": text}
            for turn in row
            for role, text in zip(("user", "assistant"), turn, strict=True)
        ]
        for row in [*rows, rows[0] + rows[1]]
    ]
    path = tmp_path / "talks.jsonl"
    path.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    tokenizer = tokenizer_with(FORGETFUL)
    learnt, held_out = (
        PackedExamples(str(path), 128, tokenizer, 0.0, part=part).encoded for part in (Part.TRAINING, Part.HELD_OUT)
    )
    assert {one.number for one in learnt + held_out} == {1, 2, 3}
    assert not {one.row for one in learnt} & {one.row for one in held_out}
    assert not {tuple(one.ids) for one in learnt} & {tuple(one.ids) for one in held_out}
    assert {one.row for one in held_out}


def test_how_much_of_an_epoch_is_padding_is_said(tmp_path, byte_tokenizer, capsys):
    path = written(tmp_path / "p.jsonl", [("ab", "cd"), ("e", "f")])  # five tokens and three, with their ends
    PackedExamples(path, 16, byte_tokenizer, prompt_weight=0.0)
    assert "2 examples in 1 sequence; one epoch is 16 tokens, 50% of them padding" in capsys.readouterr().err
