"""The verbs of tracing: their options, and from options to results."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bluejay.fields import at_least
from bluejay.files import require_writable
from bluejay.progress import counted
from bluejay.verbs.influence import given_text, influence_options, run_influence

if TYPE_CHECKING:
    from bluejay.infer.model import Model
    from bluejay.trace.tracing import Tracer

LIKELIEST = 10
"""Next tokens that are shown."""
SHOWING = ("min_tokens", "documents", "spans", "snippets")
NOT_FITTING = {"count": (*SHOWING, "without_model"), "next": SHOWING}
"""The options that each way of asking less than a whole trace would not read."""
CORPUS_HELP = "a corpus to trace in that the model does not find by itself; may be repeated"


def trace_verbs(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the verbs of tracing by `add(name, run, help)`."""
    index_options(add("index", run_index, "index a corpus, so that texts can be traced in it"))
    trace_options(add("trace", run_trace, "find the documents that a text stands in, and when they were read"))
    help = "report what a model memorised of its training data, and which test questions were in it"
    report_options(add("trace report", run_report, help))
    help = "find the documents that pushed a model most towards a text, beside those that it quotes"
    influence_options(add("trace influence", run_influence, help))


def index_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `bluejay index`."""
    verb.add_argument("corpus", type=Path, help="a corpus, such as data/quickstart")
    help = "most tokens of an index shard; smaller ones take less memory to build (default: 2^28)"
    verb.add_argument("--shard-tokens", type=at_least(1), metavar="N", help=help)
    verb.add_argument(
        "--check", action="store_true", help="only compare the checksums of the whole index and of its tokens"
    )


def trace_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `bluejay trace`."""
    verb.add_argument("target", metavar="MODEL|CORPUS", help="a model, its run, or a corpus")
    verb.add_argument("text", help="the text to trace; - reads it from standard input")
    verb.add_argument("--corpus", type=Path, action="append", default=[], metavar="DIR", help=CORPUS_HELP)
    verb.add_argument("--min-tokens", type=at_least(1), default=5, help="tokens that a match has at least (default: 5)")
    help = "documents of each match to show, at most (default: 10)"
    verb.add_argument("--documents", type=at_least(1), default=10, help=help)
    verb.add_argument("--spans", type=at_least(1), default=20, help="show at most this many matches (default: 20)")
    help = "show so many tokens around each match (default: 0)"
    verb.add_argument("--snippets", type=at_least(0), default=0, metavar="TOKENS", help=help)
    verb.add_argument("--without-model", action="store_true", help="do not ask the model how likely it found the text")
    what = verb.add_mutually_exclusive_group()
    what.add_argument("--count", action="store_true", help="only count how often the whole text occurs")
    what.add_argument("--next", action="store_true", help="only say what follows the text, in the corpus and the model")


def report_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `bluejay trace report`."""
    verb.add_argument("model", metavar="MODEL", help="a model or its run")
    verb.add_argument("--corpus", type=Path, action="append", default=[], metavar="DIR", help=CORPUS_HELP)
    help = "passages to draw from the training data, and from held-out text (default: 500)"
    verb.add_argument("--passages", type=at_least(1), default=500, metavar="N", help=help)
    help = "texts that the model writes (default: 200)"
    verb.add_argument("--samples", type=at_least(1), default=200, metavar="N", help=help)
    sets = verb.add_mutually_exclusive_group()
    help = "evaluation sets to look for, as of bluejay eval, or none (default: small)"
    sets.add_argument("--suite", default="small", metavar="NAME", help=help)
    help = "names of evaluation sets to look for, or TOML files of your own"
    sets.add_argument("--tasks", nargs="+", default=[], metavar="TASK", help=help)
    help = "questions of each set that are asked, drawn at random; all are looked for (default: 200)"
    verb.add_argument("--limit", type=at_least(1), default=200, metavar="N", help=help)
    verb.add_argument("--seed", type=at_least(0), default=1234, help="seed of all that is drawn (default: 1234)")
    verb.add_argument("--device", default="auto", help="cpu, cuda, ... (default: a GPU if any)")
    help = "the folder to write the report to (default: trace-report in the folder of the run, or here)"
    verb.add_argument("--output", type=Path, metavar="DIR", help=help)


def run_report(options: argparse.Namespace, _: list[str]) -> tuple[str, dict[str, Any]]:
    """`bluejay trace report`: the result as text and as values. Raises ValueError or OSError: a user's mistake."""
    from bluejay.trace.report.drawing import Reading
    from bluejay.trace.report.findings import write_report
    from bluejay.trace.report.measure import ReportSettings, report

    tasks = tuple(options.tasks)
    suite = "" if tasks or options.suite == "none" else options.suite
    if options.output is not None:
        require_writable(options.output, is_folder=True)
    counts = (options.passages, options.samples)
    settings = ReportSettings(*counts, suite, tasks, options.limit, options.seed, options.device)
    reading, target = Reading(options.model, options.corpus), Path(options.model)
    places = (reading.run.directory, target, target.parent)
    beside = next((one for one in places if (one / "recipe.toml").is_file()), Path())
    output = options.output or beside / "trace-report"
    require_writable(output, is_folder=True)
    found = report(options.model, reading, settings, options.command)
    page = write_report(found, output)
    return f"{found.summary()}\nin {page}", found.as_dict() | {"page": str(page)}


def run_index(options: argparse.Namespace, _: list[str]) -> tuple[str, dict[str, Any]]:
    """`bluejay index`: the result as text and as values. Raises ValueError or OSError: a user's mistake."""
    if options.check:
        from bluejay.trace.index import Index

        opened = Index(options.corpus)
        opened.check()
        return f"{options.corpus}: the index is whole, {opened.n_tokens:,} tokens", {"tokens": opened.n_tokens}
    from bluejay.trace.indexing import SHARD_TOKENS, index

    if options.shard_tokens is not None and not 1 <= options.shard_tokens <= SHARD_TOKENS:
        raise ValueError(f"--shard-tokens is {options.shard_tokens}; it must be from 1 to {SHARD_TOKENS:,}")
    made = index(options.corpus, options.shard_tokens or SHARD_TOKENS)
    return made.summary(), asdict(made) | {"directory": str(made.directory)}


def run_trace(options: argparse.Namespace, _: list[str]) -> tuple[str, dict[str, Any]]:
    """`bluejay trace`: the result as text and as values. Raises ValueError or OSError: a user's mistake."""
    from bluejay.trace.corpora import is_corpus, open_tracer
    from bluejay.trace.tracing import TraceSettings

    require_fitting(options)
    text = given_text(options.text)
    settings = TraceSettings(options.min_tokens, options.documents, options.spans)
    tracer = open_tracer(options.target, options.corpus)
    if options.count:
        return occurrences(tracer, text)
    of_corpus = is_corpus(Path(options.target))
    model = None if of_corpus or options.without_model else load_model(options.target)
    if options.next:
        return next_tokens(tracer, model, text)
    return whole_trace(tracer, model, text, settings, options.snippets)


def occurrences(tracer: "Tracer", text: str) -> tuple[str, dict[str, Any]]:
    """How often a text occurs; also after a space, which is part of a word's first token, unless the text begins with
    one or the tokenizer adds it."""

    def count(one: str) -> int:
        ids = tracer.ids(one)
        return int(tracer.counts(ids, [0], [len(ids)])[0])

    values = {"count": count(text), "tokens": tracer.n_tokens}
    said = f"{values['count']:,} times in {tracer.n_tokens:,} tokens"
    if tracer.tokenizer.prefix or text[0].isspace():
        return said, values
    values["count_after_space"] = count(f" {text}")
    return f"{said}; with a space before it {values['count_after_space']:,} times", values


def require_fitting(options: argparse.Namespace) -> None:
    """Raise ValueError for an option that would not be read."""
    parser = argparse.ArgumentParser()
    trace_options(parser)
    for asked in (name for name in NOT_FITTING if getattr(options, name)):
        for name in NOT_FITTING[asked]:
            if getattr(options, name) != parser.get_default(name):
                raise ValueError(f"--{name.replace('_', '-')} does not go with --{asked}; leave one of them out")


def load_model(target: str) -> "Model":
    """The model that is traced; of a run, the one that it ended with."""
    from bluejay.infer.model import load
    from bluejay.trace.corpora import tokenizer_folder

    return load(str(tokenizer_folder(Path(target))) if Path(target).is_dir() else target)


def likelihoods(model: "Model | None", text: str, n_tokens: int) -> list[float | None] | None:
    """The natural logarithm of the probability that the model gave each token of a text; None without a model."""
    if model is None:
        return None
    scores = model.score(text).logprobs
    return [*[None] * (n_tokens - len(scores)), *scores[max(0, len(scores) - n_tokens) :]]


def whole_trace(
    tracer: "Tracer", model: "Model | None", text: str, settings: Any, snippets: int
) -> tuple[str, dict[str, Any]]:
    """Spans, documents and steps."""
    from prompt_toolkit.utils import is_dumb_terminal

    from bluejay.trace.display import as_text

    ids = tracer.ids(text)
    logprobs = likelihoods(model, text, len(ids))
    traced = tracer.trace(text, settings, logprobs)
    values = asdict(traced)
    if snippets:
        for span, shown in zip(values["spans"], traced.spans, strict=True):
            for document, of in zip(span["documents"], shown.documents, strict=True):
                document["snippet"] = tracer.snippet(
                    of.corpus, of.split, of.position, shown.end - shown.start, snippets
                )
    pieces = tracer.tokenizer.token_bytes()
    values["infinigram"] = [
        {**one, "text": pieces[id].decode("utf-8", errors="replace"), "logprob": logprobs and logprobs[i]}
        for i, (one, id) in enumerate(zip(tracer.infinigram(ids), ids.tolist(), strict=True))
    ]
    return as_text(traced, values, sys.stdout.isatty() and not is_dumb_terminal()), values


def next_tokens(tracer: "Tracer", model: "Model | None", text: str) -> tuple[str, dict[str, Any]]:
    """What follows a text in the corpus, beside what the model thinks follows."""
    length, counts = tracer.next_tokens(tracer.ids(text))
    total, pieces = sum(counts.values()), tracer.tokenizer.token_bytes()

    def name(token: int) -> str:
        return "the end" if token < 0 or not pieces[token] else repr(pieces[token].decode("utf-8", errors="replace"))

    rows = [{"token": token, "text": name(token), "count": count} for token, count in counts.items()][:LIKELIEST]
    values: dict[str, Any] = {"context_tokens": length, "count": total, "corpus": rows, "notes": tracer.notes}
    ends = f"the last {counted(length, 'token')} of the text {'occurs' if length == 1 else 'occur'}"
    found = f"{ends} {counted(total, 'time')}; then comes"
    lines = [found if length else "no end of the text occurs; of all tokens these are the most frequent"]
    lines += [f"  {row['count'] / total:7.1%}  {row['text']}" for row in rows]
    if model is not None:
        import torch

        from bluejay.infer.prompts import end_of

        ids = end_of(model.tokenizer, model.tokenizer.encode_prompt(text), model.config.n_ctx)
        likely = torch.softmax(model.logits(ids)[-1].float(), -1).topk(LIKELIEST)
        pairs = zip(likely.indices.tolist(), likely.values.tolist(), strict=True)
        values["model"] = [{"token": token, "text": name(token), "probability": value} for token, value in pairs]
        lines += ["and the model expects", *(f"  {row['probability']:7.1%}  {row['text']}" for row in values["model"])]
    return "\n".join([*lines, *(f"note: {note}" for note in tracer.notes)]), values
