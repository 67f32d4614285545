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
from bluejay.gpt.formats.locate import locate
from bluejay.infer.model import Model, load
from bluejay.progress import for_terminal
from bluejay.tokenizer import Tokenizer
from bluejay.train.checkpoint.result import command_of, how_to_go_on, read_result
from bluejay.train.data.encoding import Encoded, with_template
from bluejay.train.data.held_out import HeldOutLoss, HeldOutText
from bluejay.train.data.packed_examples import encode_file
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
            console.print("", shown(question), sep="\n")
            beside = Table(expand=True)
            for title in (*(one.title for one in self.answers), "in the file"):
                beside.add_column(Text(title), ratio=1)
            beside.add_row(*(shown(one.texts[number].strip()) for one in self.answers), shown(wanted.strip()))
            console.print(beside)
        return file.getvalue().rstrip()


def shown(text: str) -> Text:
    """A text without markup, which a terminal does not obey."""
    return Text(for_terminal(text))


def compare(run: Path, others: list[str], show: int, max_tokens: int, device: str = "auto") -> Comparison:
    """Ask the model that a run started from, the one that it made and `others` for the answers of the first `show` of
    the run's held-out examples, greedily and at most `max_tokens` tokens each, and measure their loss on all of them.

    Raises FileNotFoundError or ValueError, with one sentence, if the run did not start from a
    model, is not finished or has no held-out examples, or a model is not there or cannot be asked one of them.
    """
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
    if not (run / "model").is_dir():
        raise FileNotFoundError(f"{run} has no model yet; {how_to_go_on(run)}")
    models = [("before", recipe.init), ("after", str(run / "model")), *((name, name) for name in others)]
    for _, name in models:
        locate(name)  # a name that is wrong is said before the first model has answered
    chosen: list[Encoded] = []
    questions, wanted = list[str](), list[str]()
    answers = []
    for title, name in models:
        with load(name, device) as model:
            tokenizer = model.tokenizer = with_template(model.tokenizer, recipe.data.chat_template)
            if chosen:
                examples = same_examples(chosen, recipe, tokenizer, model.config.n_ctx, name)
            else:
                chosen = examples = held_out_examples(recipe, tokenizer, run)
                shown = [(one, *list(one.answers())[-1]) for one in examples[:show]]
                questions = [one.question for one, *_ in shown]
                wanted = [tokenizer.decode(list(one.ids[first:end])) for one, first, end in shown]
            texts = answers_to(examples[:show], model, max_tokens)
            answers.append(Answers(title, name, loss_of_answers(model, examples), texts))
    return Comparison(questions, wanted, answers)


def held_out_examples(recipe: TrainRecipe, tokenizer: Tokenizer, run: Path) -> list[Encoded]:
    """The examples that a run in this folder is measured on, by the tokens of the model that it began from. Raises
    ValueError if they are others than those of its result."""
    held_out, done = HeldOutText.of(recipe, tokenizer), read_result(run)
    if done is not None and done.held_out_data != held_out.content():
        raise ValueError(
            f"{recipe.data.held_out} was changed since {run} was measured on it; restore it, or measure the run anew "
            f"with {command_of(run)}"
        )
    return held_out.examples


def same_examples(
    chosen: list[Encoded], recipe: TrainRecipe, tokenizer: Tokenizer, n_ctx: int, name: str
) -> list[Encoded]:
    """The chosen examples in the tokens of another model, of this name, whose context has `n_ctx` tokens. Raises
    ValueError, naming model and place, if that is too short for one, or its chat template makes other texts of it."""
    path = recipe.data.held_out
    try:
        found = {one.place: one for one in encode_file(Path(path), n_ctx, tokenizer, recipe.data.columns)}
    except ValueError as error:
        raise ValueError(f"{name} cannot be asked these examples: {error}") from None
    for one in chosen:
        same = found.get(one.place)
        if same is None or len(list(same.answers())) != len(list(one.answers())):
            raise ValueError(
                f"{name} cannot be asked {path}, {one.place}: that is longer than its context of {n_ctx} tokens, or "
                "its chat template writes it otherwise"
            )
    return [found[one.place] for one in chosen]


def answers_to(examples: list[Encoded], model: Model, max_tokens: int) -> list[str]:
    """What a model answers where the last answer of each example stands."""
    prompts = [list(one.ids[: list(one.answers())[-1][0]]) or [model.tokenizer.eot] for one in examples]
    return [text for [text] in model.generate(prompts, max_tokens=max_tokens, temperature=0)]


def loss_of_answers(model: Model, examples: list[Encoded]) -> HeldOutLoss:
    """The loss of a model on the answers of examples, each after the prompt that it is asked with."""
    pairs = [(list(one.ids[:first]), list(one.ids[first:end])) for one in examples for first, end in one.answers()]
    nats = -math.fsum(found.logprob for found in model.loglikelihood(pairs))
    table = model.tokenizer.token_bytes()
    ids = [id for _, answer in pairs for id in answer]
    n_bytes = sum(len(table[id]) for id in ids)
    return HeldOutLoss(nats / len(ids), nats / math.log(2) / n_bytes, {})
