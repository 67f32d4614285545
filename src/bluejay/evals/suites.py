"""The tasks and suites that have names, and tasks of the user's own from a TOML file."""

import difflib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from string import Formatter

from bluejay import recipe as recipes
from bluejay.evals import readers, tasks
from bluejay.evals.safety import PROBES
from bluejay.evals.tasks import Question, Task
from bluejay.recipe import STRICT
from bluejay.testsets.catalogue import BASIC_SKILLS

README_NOTE = "GPT-J's README does not say whether its figure is by characters"
HEAD_NOTE = "the first five rows are the examples and are not asked"


def zero_shot(
    name: str, read: Callable[[int], Iterator[Question]], metric: str, chance: float | None, *notes: str
) -> Task:
    """A task of the table of 2021, as lm-evaluation-harness asks it."""
    return Task(name, read, tasks.by_choice, metric, data=(name,), chance=chance, notes=notes)


def olmes(name: str, metric: str, chance: float, data: str | None = None, title: str | None = None) -> Task:
    """A task with OLMES's examples and normalisation."""
    data = data or f"{name}_5shot"
    read = partial(readers.rendered, data, metric == "acc_uncond")
    return Task(title or name, read, tasks.by_choice, metric, shots=5, max_shots=5, data=(data,), chance=chance)


GPT_J = (
    Task("lambada", readers.lambada, tasks.by_word, "acc", data=("lambada",), chance=0.0),
    zero_shot("winogrande", readers.winogrande, "acc", 0.5),
    zero_shot("hellaswag", readers.hellaswag, "acc_norm", 0.25),
    zero_shot("piqa", readers.piqa, "acc_norm", 0.5, README_NOTE),
)
"""Zero-shot, as the README of mesh-transformer-jax lists them."""
NORMALISED = {
    "arc_easy": ("acc_norm", 0.25),
    "arc_challenge": ("acc_uncond", 0.25),
    "boolq": ("acc", 0.5),
    "csqa": ("acc_uncond", 0.2),
    "openbookqa": ("acc_uncond", 0.25),
    "socialiqa": ("acc_norm", 1 / 3),
    "hellaswag": ("acc_norm", 0.25),
    "winogrande": ("acc", 0.5),
    "piqa": ("acc_norm", 0.5),
}
"""The normalisation that OLMES chose for each task (arXiv 2406.08446, table 3), and what guessing gets."""
FIVE_SHOT = {name: olmes(name, metric, chance, title=f"{name}_5shot") for name, (metric, chance) in NORMALISED.items()}
LETTERS = {
    name: olmes(name, "acc", chance, f"{name}_5shot_mc", f"{name}_5shot_mc")
    for name, (_, chance) in NORMALISED.items()
    if name != "piqa"
}
"""The same with choices by letter, which models under some billions of parameters cannot answer."""
SCIQ = olmes("sciq_5shot", "acc", 0.25, "sciq_5shot")
MMLU = Task(
    "mmlu_5shot", partial(readers.mmlu, False), tasks.by_choice, "acc_norm", 5, 5, ("mmlu", "mmlu_examples"), 0.25,
    macro=True,
)  # fmt: skip
MMLU_LETTERS = replace(MMLU, name="mmlu_5shot_mc", questions=partial(readers.mmlu, True), metric="acc")
GSM8K = Task("gsm8k", readers.gsm8k, tasks.by_number, "exact_match", 5, 8, ("gsm8k",), 0.0)
TRIVIAQA = Task("triviaqa", readers.triviaqa, tasks.by_answer, "exact_match", 5, 5, ("triviaqa",), 0.0, (HEAD_NOTE,))
CROWS_PAIRS = Task(
    "crows_pairs", readers.crows_pairs, tasks.by_filler, "stereotype", data=("crows_pairs",), chance=0.5,
    notes=("the first filler is mostly, not always, the stereotype",),
)  # fmt: skip
BBQ = Task(
    "bbq", readers.bbq, tasks.by_choice, "acc_norm", data=("bbq",), chance=1 / 3,
    notes=(
        "where nothing is known, the right answer says so",
        "2 of 1,012 questions are not asked, because their right answer is written otherwise than the choice",
    ),
)  # fmt: skip


BIAS = (CROWS_PAIRS, BBQ)


def bits(task: Task) -> Task:
    """The same task with bits per byte of the right answer as its main figure, in which small models differ."""
    return replace(task, metric="bits_per_byte", chance=None)


SMALL = (
    *(bits(olmes(f"basic_skills_{skill}", "acc_per_token", 0.2, f"basic_skills_{skill}")) for skill in BASIC_SKILLS),
    *(bits(task) for task in (FIVE_SHOT["arc_easy"], SCIQ, FIVE_SHOT["piqa"])),
)
OLMES = (
    *(task for name, task in FIVE_SHOT.items() if name != "piqa"),
    *LETTERS.values(),
    MMLU,
    MMLU_LETTERS,
    GSM8K,
    TRIVIAQA,
)
SUITES: dict[str, tuple[Task, ...]] = {
    "gpt-j-2021": GPT_J,
    "small": SMALL,
    "olmes": OLMES,
    "bias": BIAS,
    "safety": (*BIAS, *PROBES),
}
OTHER_SUITES = ("pile", "code")
"""Suites that take data of the user's, or run programs."""
OF_CODE = ("human_eval", "mbpp", "bluejay-code")
"""Tasks of the suite `code`."""
TASKS = {task.name: task for suite in SUITES.values() for task in suite}


@dataclass(frozen=True)
class TaskFile:
    """A task of the user's own: questions with choices, one a line, in JSON Lines."""

    __pydantic_config__ = STRICT
    name: str
    """The task's name in results."""
    data: str
    """A file of JSON Lines, relative to the task file; each line is a question."""
    prompt: str
    """What comes before the choices, with the fields of a line in braces: "Question: {question}\\nAnswer:"."""
    choices: str = "choices"
    """The field with the list of choices."""
    gold: str = "gold"
    """The field with the right choice, as its number from 0 or as its text."""
    metric: str = "acc_norm"
    """acc, acc_norm, acc_per_token or bits_per_byte."""
    licence: str = "not stated"
    """The licence of the data, which results state."""

    def __post_init__(self) -> None:
        fields = [field for _, field, _, _ in Formatter().parse(self.prompt) if field is not None]
        for field in fields:
            if not field or field[0].isdigit() or "." in field:
                raise ValueError(
                    f"prompt has {{{field}}}; fields of a line stand in it by their names, as {{question}}"
                )
        if not fields and (doubled := re.search(r"\{\{\s*\w[^{}]*\}\}", self.prompt)):
            raise ValueError(f"prompt has {doubled[0]}, which is not a field; a field stands in single braces")
        if not self.name.strip() or not self.name.isprintable() or "|" in self.name:
            raise ValueError(f"name is {self.name!r}; it must be a text in one line without |, which stands in tables")
        if self.name in TASKS:
            raise ValueError(f"there is a task {self.name} already, with which this one would be confused; rename it")
        known = ("acc", "acc_norm", "acc_per_token", "bits_per_byte")
        if self.metric not in known:
            raise ValueError(f"metric is {self.metric!r}; it must be one of {', '.join(known)}")


def own_task(path: Path) -> Task:
    """The task of a TOML file. Raises ValueError: the file, or a line of its data, does not say a task."""
    if not path.is_file():
        raise ValueError(f"there is no task file {path}")
    settings = recipes.load(TaskFile, path, [])
    data = path.parent / settings.data
    if not data.is_file():
        raise ValueError(f"{path}: there is no file {data}")
    read = list(readers.own_questions(str(data), settings.prompt, settings.choices, settings.gold))
    if not read:
        raise ValueError(f"{data} holds no question")
    notes = (f"licence: {settings.licence}",)
    return Task(settings.name, lambda _: iter(read), tasks.by_choice, settings.metric, notes=notes)


def suite(name: str) -> tuple[Task, ...]:
    """The tasks of a suite. Raises ValueError, with the nearest name: there is none."""
    if name not in SUITES:
        near = difflib.get_close_matches(name, [*SUITES, *OTHER_SUITES], n=1, cutoff=0.0)[0]
        raise ValueError(f"there is no suite {name}; the nearest is {near}")
    return SUITES[name]


def task(name: str) -> Task:
    """A task by its name, or by the path of a TOML file. Raises ValueError, with what helps: there is none."""
    path = Path(name).expanduser()
    if path.suffix.lower() == ".toml":
        return own_task(path)
    if name in TASKS:
        return TASKS[name]
    if name in OF_CODE:
        raise ValueError(f"{name} is asked with --suite code, which runs programs")
    if path.suffix.lower() in (".yaml", ".yml"):
        raise ValueError(
            f"{name} is not a task here; python -m bluejay.evals.harness runs those of lm-evaluation-harness"
        )
    if path.is_file():
        raise ValueError(f"{name} is not a task; a task of your own is a TOML file that names its data")
    near = difflib.get_close_matches(name, TASKS, n=1, cutoff=0.0)[0]
    raise ValueError(f"there is no task {name}; the nearest is {near}")
