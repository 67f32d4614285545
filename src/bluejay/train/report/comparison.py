"""What a fine-tuning run changed: the answers before and after it to held-out examples, and the loss on them."""

import io
import math
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bluejay import recipe as recipes
from bluejay.infer.model import Model, load
from bluejay.train.data.encoding import Encoded, with_template
from bluejay.train.data.held_out import HeldOutLoss
from bluejay.train.data.packed_examples import PackedExamples, Part
from bluejay.train.recipe import TrainRecipe, is_examples


@dataclass(frozen=True)
class Answers:
    """One model on the held-out examples."""

    title: str
    """Before, after, or the name of another model."""
    model: str
    """Its path or its name on the hub."""
    held_out: HeldOutLoss
    """The loss on the answers of all held-out examples."""
    texts: list[str]
    """What it answers to each of those that are shown."""


@dataclass(frozen=True)
class Comparison:
    """Models on the same held-out examples."""

    questions: list[str]
    wanted: list[str]
    """The answer to each question in the file."""
    answers: list[Answers]
    """The model before the run, the one after it, and others."""

    def as_dict(self) -> dict[str, Any]:
        """The comparison as JSON types."""
        return asdict(self)

    def table(self) -> str:
        """The losses, and under each question the answers side by side, as lines as wide as the terminal."""
        file = io.StringIO()
        console = Console(file=file, width=shutil.get_terminal_size((120, 24)).columns, no_color=True)
        losses = Table("held-out loss", "nats per token", "bits per byte", "model", box=None, pad_edge=False)
        for one in self.answers:
            held_out = one.held_out
            figures = f"{held_out.nats_per_token:.3f}", f"{held_out.bits_per_byte:.3f}"
            losses.add_row(one.title, *figures, Text(one.model))
        console.print(losses)
        for number, (question, wanted) in enumerate(zip(self.questions, self.wanted, strict=True)):
            console.print("", Text(question), sep="\n")
            beside = Table(expand=True)
            for title in (*(one.title for one in self.answers), "in the file"):
                beside.add_column(Text(title), ratio=1)
            beside.add_row(*(Text(one.texts[number].strip()) for one in self.answers), Text(wanted.strip()))
            console.print(beside)
        return file.getvalue().rstrip()


def compare(run: Path, others: list[str], show: int, max_tokens: int, device: str = "auto") -> Comparison:
    """Ask the model that a run started from, the one that it made and `others` for the answers of the first `show` of
    the run's held-out examples, greedily and at most `max_tokens` tokens each, and measure their loss on all of them.

    Raises FileNotFoundError or ValueError, with one sentence, if a number is too small, the run did not start from a
    model or has no held-out examples, or a model is not there.
    """
    for name, number, least in (("show", show, 0), ("max-tokens", max_tokens, 1)):
        if number < least:
            raise ValueError(f"--{name} is {number}; it must be at least {least}")
    path = run / "recipe.toml"
    if not path.is_file():
        raise FileNotFoundError(f"no run at {run}; `bluejay train RECIPE` makes one in runs/")
    recipe = recipes.load(TrainRecipe, path, [])
    if recipe.init is None:
        raise ValueError(f"{run} began with random weights, so there is no model before it to compare")
    if not is_examples(recipe.data.held_out):
        raise ValueError(
            f"{run} holds out {recipe.data.held_out}, which is text; only examples have answers to compare"
        )
    models = [("before", recipe.init), ("after", str(run / "model")), *((name, name) for name in others)]
    asked: list[tuple[str, str]] = []
    answers = []
    for title, name in models:
        with load(name, device) as model:
            model.tokenizer = with_template(model.tokenizer, recipe.data.chat_template)
            asked, texts, held_out = answers_of(model, recipe, show, max_tokens)
        answers.append(Answers(title, name, held_out, texts))
    return Comparison([question for question, _ in asked], [wanted for _, wanted in asked], answers)


def answers_of(
    model: Model, recipe: TrainRecipe, show: int, max_tokens: int
) -> tuple[list[tuple[str, str]], list[str], HeldOutLoss]:
    """The questions that are shown, each with its answer in the file; the model's answers; its loss on all answers."""
    data, tokenizer = recipe.data, model.tokenizer
    part, tokens = Part.HELD_OUT if data.valid is None else Part.ALL, recipe.evaluate.tokens
    examples = PackedExamples(
        data.held_out, data.sequence_length, tokenizer, 0.0, data.columns, part, at_most=tokens
    ).encoded
    shown = [(one, *list(one.answers())[-1]) for one in examples[:show]]
    asked = [(one.question, tokenizer.decode(one.ids[first:end])) for one, first, end in shown]
    prompts = [one.ids[:first] or [tokenizer.eot] for one, first, _ in shown]
    texts = [text for [text] in model.generate(prompts, max_tokens=max_tokens, temperature=0)]
    return asked, texts, loss_of_answers(model, examples)


def loss_of_answers(model: Model, examples: list[Encoded]) -> HeldOutLoss:
    """The loss of a model on the answers of examples, each after the prompt that it is asked with."""
    pairs = [(one.ids[:first], one.ids[first:end]) for one in examples for first, end in one.answers()]
    nats = -math.fsum(found.logprob for found in model.loglikelihood(pairs))
    table = model.tokenizer.token_bytes()
    ids = [id for _, answer in pairs for id in answer]
    n_bytes = sum(len(table[id]) for id in ids)
    return HeldOutLoss(nats / len(ids), nats / math.log(2) / n_bytes, {})
