"""`bluejay lens`: its options, and from options to results."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bluejay.fields import at_least
from bluejay.files import json_of, require_writable, write_text
from bluejay.mistakes import text_given

if TYPE_CHECKING:
    from bluejay.lens.activations import Lens

LOOK = "a look"
"""The method without an option of its own."""
METHODS = ("names", "hooks", "without", "patch", "heads", "card", "tune", "steer")
FITTING = {
    "text": (LOOK, "hooks", "without", "patch", "steer"),
    "position": (LOOK, "without"),
    "target": (LOOK, "without", "patch"),
    "against": (LOOK, "patch"),
    "tuned": (LOOK,),
    "part": ("patch",),
    "layer": ("steer",),
    "strengths": ("steer",),
    "cost": ("steer",),
    "corpus": ("card",),
    "tokens": ("card",),
    "steps": ("tune",),
    "output": (LOOK, "hooks", "without", "patch", "heads", "card", "tune", "steer"),
}
"""The methods that each other option goes with."""


def lens_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `bluejay lens`."""
    verb.add_argument("model", help="a model directory, a run, a .gguf file or the hub's name of a pulled model")
    verb.add_argument("text", nargs="?", help="the text to look at; - reads it from standard input")
    help = "the position whose prediction is explained, counted from the end if it is negative (default: -1)"
    verb.add_argument("--position", type=int, default=-1, metavar="N", help=help)
    verb.add_argument("--target", metavar="TOKEN", help="the token whose logit is explained (default: the likeliest)")
    help = "explain how much larger the logit is than that of this token"
    verb.add_argument("--against", metavar="TOKEN", help=help)
    verb.add_argument("--tuned", action="store_true", help="read the layers through the model's tuned lens")
    what = verb.add_mutually_exclusive_group()
    help = "only run the text and keep these activations, named as in TransformerLens; * stands for anything"
    what.add_argument("--hooks", nargs="+", metavar="NAME", help=help)
    what.add_argument("--names", action="store_true", help="only list the names of all activations")
    what.add_argument("--without", action="store_true", help="say what happens to the prediction without each token")
    help = "patch activations of the text into this changed one, of equal length"
    what.add_argument("--patch", metavar="TEXT", help=help)
    help = "score all heads (induction, previous and duplicate token, copying); of a run, at each model that it kept"
    what.add_argument("--heads", action="store_true", help=help)
    help = "describe a neuron or a head from texts of the model's corpus: neuron:LAYER:NUMBER or head:LAYER:NUMBER"
    what.add_argument("--card", metavar="WHAT", help=help)
    what.add_argument("--tune", type=Path, metavar="FILE", help="train the tuned lens of the model on a text file")
    help = "steer by the direction from the texts of the second file to those of the first, one text a line"
    what.add_argument("--steer", nargs=2, type=Path, metavar="FILE", help=help)
    help = "what is patched: residual, attention or mlp by position, heads, or a curve of more heads (default: heads)"
    verb.add_argument("--part", choices=("residual", "attention", "mlp", "heads", "curve"), default="heads", help=help)
    verb.add_argument("--layer", type=int, metavar="N", help="the layer to steer at (default: the middle)")
    help = "strengths of steering (default: -2 -1 0 1 2)"
    verb.add_argument("--strengths", nargs="+", type=float, default=[-2.0, -1.0, 0.0, 1.0, 2.0], metavar="X", help=help)
    help = "a text file on which the cost of steering is measured (default: the text itself)"
    verb.add_argument("--cost", type=Path, metavar="FILE", help=help)
    help = "a corpus for --card that the model does not find by itself; may be repeated"
    verb.add_argument("--corpus", type=Path, action="append", default=[], metavar="DIR", help=help)
    verb.add_argument("--tokens", type=at_least(1), default=100_000, help="tokens read for --card (default: 100000)")
    verb.add_argument("--steps", type=at_least(1), default=250, help="steps of --tune (default: 250)")
    help = "write activations to a .safetensors file, results to a .json or .html file"
    verb.add_argument("--output", type=Path, metavar="FILE", help=help)


def run_lens(options: argparse.Namespace, _: list[str]) -> tuple[str, dict[str, Any]]:
    """`bluejay lens`: the result as text and as values. Raises ValueError or OSError: a user's mistake."""
    if options.text is None and not (options.names or options.heads or options.card or options.tune):
        raise ValueError("there is no text to look at; give one after the model")
    suffixes = (".safetensors",) if options.hooks else (".json", ".html")
    if options.output is None and options.hooks:
        raise ValueError("--hooks needs --output FILE.safetensors, the file that the activations are written to")
    if options.output is not None and options.output.suffix not in suffixes:
        raise ValueError(f"--output is {options.output}; it must end in {' or '.join(suffixes)}")
    if options.output is not None:
        require_writable(options.output)
    require_fitting(options)
    if options.heads and is_run(Path(options.model)):
        from bluejay.lens.heads import heads_over_training

        return shown(heads_over_training(Path(options.model)), options.output)
    from bluejay.infer.model import load

    text = text_given(options.text or "")
    lens = load(options.model).lens()
    if options.names:
        return "\n".join(lens.hooks), {"hooks": list(lens.hooks)}
    if options.hooks:
        run = lens.run(text, options.hooks)
        run.save(options.output)
        shapes = {name: list(value.shape) for name, value in run.items()}
        return f"{len(shapes)} activations in {options.output}", {"output": str(options.output), "shapes": shapes}
    require_finite(lens)
    return shown(result(lens, options, text), options.output)


def require_finite(lens: "Lens") -> None:
    """Raise ValueError where a weight of the model holds NaN or infinity, so that no figure would mean anything."""
    from bluejay.gpt.formats.tensors import is_finite

    for name, weight in lens.gpt.state_dict().items():
        if not is_finite(weight):
            raise ValueError(
                f"{name} of {lens.name} holds numbers that are not finite, so there is nothing to explain; --hooks "
                "writes the activations as they are"
            )


def require_fitting(options: argparse.Namespace) -> None:
    """Raise ValueError for an option that the chosen method would not read."""
    parser = argparse.ArgumentParser()
    lens_options(parser)
    method = next((name for name in METHODS if getattr(options, name) not in (None, False)), LOOK)
    for name, fitting in FITTING.items():
        if method not in fitting and getattr(options, name) != parser.get_default(name):
            chosen, *others = (one if one == LOOK else f"--{one}" for one in (method, *fitting))
            given = "a text" if name == "text" else f"--{name}"
            raise ValueError(f"{given} does not go with {chosen}; it goes with {' or '.join(others)}")


def is_run(path: Path) -> bool:
    """Whether a path is the folder of a training run, which has models but is none."""
    from bluejay.lens.heads import kept_models

    return not (path / "config.json").exists() and any(name.startswith("step-") for name in kept_models(path))


def shown(found: Any, output: Path | None) -> tuple[str, dict[str, Any]]:
    """A result as text and as values, after it was written to a file if one is named."""
    values = found.as_dict()
    if output is not None:
        write(found, values, output)
    return found.text(), values


def write(found: Any, values: dict[str, Any], path: Path) -> None:
    """Write a result as JSON or as a page of HTML."""
    if path.suffix == ".json":
        write_text(path, json_of(values))
        return
    head = "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n<title>Look inside</title>\n"
    write_text(path, f"{head}{found._repr_html_()}\n")


def result(lens: "Lens", options: argparse.Namespace, text: str) -> Any:
    """The result that the options ask for."""
    if options.heads:
        from bluejay.evals.evaluation_file import identity_at
        from bluejay.lens.heads import head_scores

        scores = head_scores(lens, min(50, (lens.config.n_ctx - 1) // 2))
        return scores if lens.path is None else replace(scores, identity=identity_at(lens.path))
    if options.card:
        return card(lens, options)
    if options.tune:
        from bluejay.lens.layers import tune_and_save

        return tune_and_save(lens, text_of(options.tune), options.steps)
    if options.steer:
        return steered(lens, options, text)
    if options.without:
        from bluejay.lens.ablation import without_tokens

        return without_tokens(lens, text, options.position, options.target)
    if options.patch is not None:
        from bluejay.lens.patching import head_curve, pair_of, patch

        if options.part == "curve":
            pair = pair_of(lens, text, options.patch, options.target, options.against, ("heads",))
            return head_curve(lens, pair)
        return patch(lens, pair_of(lens, text, options.patch, options.target, options.against), options.part)
    from bluejay.lens.layers import TunedLens
    from bluejay.lens.prediction import look

    tuned = TunedLens.load(lens) if options.tuned else None
    return look(lens, text, options.position, options.target, options.against, tuned)


def card(lens: "Lens", options: argparse.Namespace) -> Any:
    """`--card`: from the corpora that the model was trained on."""
    from bluejay.lens.cards import LENGTH, head_card, neuron_card, passages
    from bluejay.trace.corpora import open_tracer

    kind, *numbers = options.card.split(":")
    if kind not in ("neuron", "head") or len(numbers) != 2 or not all(map(str.isdecimal, numbers)):
        raise ValueError(f"--card is {options.card!r}; it must be neuron:LAYER:NUMBER or head:LAYER:NUMBER")
    layer, number = map(int, numbers)
    lens.layer(layer)
    (lens.neuron if kind == "neuron" else lens.head)(number)
    length = min(LENGTH, lens.config.n_ctx)
    found = list(passages(open_tracer(options.model, options.corpus), options.tokens, length))
    return (neuron_card if kind == "neuron" else head_card)(lens, found, layer, number)


def steered(lens: "Lens", options: argparse.Namespace, text: str) -> Any:
    """`--steer`: what is written at each strength, and what it costs."""
    from bluejay.lens.steering import steer, steering_vector

    one, other = ([line for line in text_of(path).splitlines() if line.strip()] for path in options.steer)
    layer = lens.config.n_layer // 2 if options.layer is None else options.layer
    measured = text if options.cost is None else text_of(options.cost)
    return steer(lens, steering_vector(lens, one, other, layer), options.strengths, text, [measured])


def text_of(path: Path) -> str:
    """The text of a file. Raises ValueError for one that is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from None
