"""Probes find what is there, and say so of what is not."""

import pytest
import torch

from bluejay.lens.probes import features, probe


def test_a_probe_finds_a_linear_label_and_the_control_task_does_not():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 12, generator=generator) * torch.linspace(0.1, 10, 12) + 3
    labels = ["left" if value > 3 else "right" for value in x[:, 4]]
    found = probe(x, labels, kinds=range(400))
    assert found.accuracy > 0.9 and found.control < 0.7 and found.selectivity > 0.25 and found.baseline < 0.7
    answers = [found.labels[i] for i in found(x).argmax(-1)]
    assert sum(a == b for a, b in zip(answers, labels, strict=True)) > 370
    assert "selectivity" in found._repr_html_() and found.as_dict()["accuracy"] == found.accuracy


def test_a_label_of_the_token_alone_is_not_selective():
    """Where the activation only says which token it is, the control task is as easy as the task."""
    kinds = [i % 4 for i in range(200)]
    x = torch.eye(4)[kinds]
    found = probe(x, ["a" if kind < 2 else "b" for kind in kinds], kinds)
    assert found.accuracy == 1 and found.control == 1 and found.selectivity == 0


def test_labels_and_kinds_of_tensors_are_told_apart_by_their_values():
    x, labels, kinds = torch.randn(200, 4), torch.arange(200) % 2, torch.arange(200) % 4
    found = probe(x, labels, kinds)
    assert found.labels == [0, 1] and found.as_dict() == probe(x, labels.tolist(), kinds.tolist()).as_dict()
    assert probe(x.numpy(), list(labels), list(kinds.numpy())).as_dict() == found.as_dict()


def test_activations_are_read_from_any_kind_of_rows():
    """Most of all from a list of tensors, which reading one text after the other makes."""
    x, labels = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)), ["a", "b"] * 20
    found = probe(x, labels, range(40))
    for given in (list(x), [row.numpy() for row in x], x.tolist(), x.numpy(), x.clone().requires_grad_()):
        assert torch.equal(probe(given, labels, range(40)).weight, found.weight)
    for given in (x.numpy(), x.double()):
        assert torch.equal(found(given), found(x))
    for wrong, shape in (
        (x[:, 0], r"\(\)"),
        (list(x[:, :1, None]), r"\(1, 1\)"),
        ([x[0], x[1, :2]], r"\(2,\) and \(4,\)"),
    ):
        with pytest.raises(ValueError, match=rf"have the shape {shape}; a probe takes a row of each, \(D,\)"):
            probe(wrong, labels, range(40))
    with pytest.raises(ValueError, match="there are 0 activations"):
        probe([], labels, range(40))


def test_features_are_the_activation_at_a_position(lens):
    texts, name = ["the cat", "the", "zebra"], "blocks.1.hook_resid_post"
    found = features(lens, texts, name)
    assert found.shape == (3, 16) and torch.equal(found[2], lens.run("zebra", [name])[name][0, -1])
    assert torch.equal(features(lens, "zebra", name), found[2:])


@pytest.mark.parametrize(
    ("texts", "name", "message"),
    [
        ([], "hook_embed", "there is no text to read features from"),
        (["the"], "blocks.*.hook_resid_post", "is 2 activations; features are read from one"),
        (["the"], "blocks.0.attn.hook_pattern", "hook_pattern has a row for each head and token; read one"),
        (["the"], "blocks.*1.attn.hook_attn_scores", "blocks.1.attn.hook_attn_scores has a row for each head"),
    ],
)
def test_features_are_of_one_activation_of_some_texts(lenses, texts, name, message):
    with pytest.raises(ValueError, match=message):
        features(lenses["gpt2"], texts, name)


@pytest.mark.parametrize(
    ("labels", "kinds", "message"),
    [
        (["a"] * 10, range(10), "a probe needs two labels and eight examples; there are 1 and 10"),
        (["a", "b"] * 4, range(10), "there are 10 activations, 8 labels and 10 kinds"),
    ],
)
def test_too_little_is_said(labels, kinds, message):
    with pytest.raises(ValueError, match=message):
        probe(torch.zeros(10, 2), labels, kinds)


def test_activations_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="numbers that are not finite"):
        probe(torch.full((8, 2), float("nan")), ["a", "b"] * 4, range(8))
