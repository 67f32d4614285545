"""Figures that others published, with their source and why a row may not be comparable with ours."""

from dataclasses import dataclass

README = "README of mesh-transformer-jax (2021)"
AUTHORS = "the figure is the model's authors', not the harness's"
API = "the weights are not public; the sizes behind the names are not stated"
HARNESS = "lm-evaluation-harness of 2021 before its versions; LAMBADA with its paragraph breaks"
OVERLAP = "the training data were not cleaned of the test sets"
CODEX = "Codex paper (arXiv 2107.03374)"
SAMPLES = "200 samples, top-p 0.95, the best temperature for each k"


@dataclass(frozen=True)
class Published:
    """One model as it was published."""

    model: str
    figures: dict[str, float]
    """Task -> figure; shares are between 0 and 1."""
    source: str
    caution: str
    """Why it may not be comparable."""


def table_2021(
    model: str, lambada: float, winogrande: float, hellaswag: float, piqa: float, *cautions: str
) -> Published:
    """A row of the zero-shot table, in percent as printed."""
    percent = {"lambada": lambada, "winogrande": winogrande, "hellaswag": hellaswag, "piqa": piqa}
    figures = {task: round(value / 100, 6) for task, value in percent.items()}
    return Published(model, figures, README, "; ".join((HARNESS, *cautions)))


def human_eval(model: str, one: float, ten: float, hundred: float) -> Published:
    """A row of HumanEval's table, in percent as printed."""
    figures = {"human_eval pass@1": one, "human_eval pass@10": ten, "human_eval pass@100": hundred}
    return Published(model, {task: round(value / 100, 6) for task, value in figures.items()}, CODEX, SAMPLES)


ROWS = (
    table_2021("GPT-2-1.5B", 51.21, 59.4, 50.9, 70.8),
    table_2021("GPT-Neo-1.3B", 57.2, 55.0, 48.9, 71.1, OVERLAP),
    table_2021("GPT-Neo-2.7B", 62.2, 56.5, 55.8, 73.0, OVERLAP),
    table_2021("GPT-J-6B", 69.7, 65.3, 66.1, 76.5, OVERLAP),
    table_2021("GPT-3-Ada", 51.6, 52.9, 43.4, 70.5, API, OVERLAP),
    table_2021("GPT-3-1.3B", 63.6, 58.7, 54.7, 75.1, AUTHORS, OVERLAP),
    table_2021("GPT-3-2.7B", 67.1, 62.3, 62.8, 75.6, AUTHORS, OVERLAP),
    table_2021("GPT-3-6.7B", 70.3, 64.5, 67.4, 78.0, AUTHORS, OVERLAP),
    table_2021("GPT-3-Curie", 69.3, 65.6, 68.5, 77.9, API, OVERLAP),
    table_2021("GPT-3-13B", 72.5, 67.9, 70.9, 78.5, AUTHORS, OVERLAP),
    table_2021("GPT-3-175B", 76.2, 70.2, 78.9, 81.0, AUTHORS, OVERLAP),
    human_eval("GPT-Neo-125M", 0.75, 1.88, 2.97),
    human_eval("GPT-Neo-1.3B", 4.79, 7.47, 16.30),
    human_eval("GPT-Neo-2.7B", 6.41, 11.27, 21.37),
    human_eval("GPT-J-6B", 11.62, 15.74, 27.74),
    human_eval("Codex-300M", 13.17, 20.37, 36.27),
    human_eval("Codex-12B", 28.81, 46.81, 72.31),
)


def rows_for(task: str) -> list[Published]:
    """The published rows that have a figure for a task, by its name or by its name and metric."""
    return sorted((row for row in ROWS if task in row.figures), key=lambda row: row.figures[task])
