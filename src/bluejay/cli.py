"""The command line: parse, call one function, print."""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bluejay.fields import add_options, at_least, given
from bluejay.files import json_of, require_writable
from bluejay.infer.params import SamplingParams
from bluejay.mistakes import (
    Interrupted,
    has_no_home_folder,
    is_first,
    open_outputs,
    reader_gone,
    sentence,
    text_given,
)
from bluejay.progress import for_terminal
from bluejay.serve.settings import PublicSettings, ServeSettings, settings_from
from bluejay.verbs.card import card_options, run_card
from bluejay.verbs.eval import eval_options, run_eval
from bluejay.verbs.lens import lens_options, run_lens
from bluejay.verbs.parser import (
    Parser,
    all_parsers,
    fail,
    refuse,
    require_recipe_first,
    require_verb_first,
    verbs_of,
)
from bluejay.verbs.pile import pile_verbs
from bluejay.verbs.trace import trace_verbs
from bluejay.verbs.train import run_train, train_options

TWO_WORDS = ("trace report", "trace influence")
"""Verbs whose first word is a verb by itself, which argparse can only know as one word."""
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".ggml")
"""Endings of files of weights, which `convert` does not write by themselves."""


def main(arguments: list[str] | None = None) -> None:
    """Run one verb. Exits with code 2 after a user's mistake, 130 after an interrupt, 143 after SIGTERM."""
    verbose = False
    open_outputs()
    words = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["bluejay", *words])
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    if (verb := " ".join(words[:2])) in TWO_WORDS:
        words = [verb, *words[2:]]
    try:
        known = parser()
        require_verb_first(words, known)
        options, overrides = known.parse_known_args(words)
        if overrides and not options.takes_overrides:
            refuse(overrides, options.parser)
        require_recipe_first(words, overrides, options)
        verbose, options.command = options.verbose, command
        options.verb(options, overrides)
        sys.stdout.flush()
    except (KeyboardInterrupt, Interrupted) as stopped:
        if arguments is None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # another Ctrl-C, while Python ends, shows no traceback
        if isinstance(stopped, Interrupted) and is_first():
            print(stopped, file=sys.stderr)
        sys.exit(128 + getattr(stopped, "signal", signal.SIGINT))  # the exit code of a process that a signal ended
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, RuntimeError) and not has_no_home_folder(error):
            raise
        if isinstance(error, BrokenPipeError) and reader_gone():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain at its exit
            sys.exit(141)  # the exit code of a filter that SIGPIPE ended
        if verbose:
            raise
        fail(sentence(error), isinstance(error, ConnectionError | TimeoutError))


def parser() -> Parser:
    """All verbs and their options."""
    top = Parser(prog="bluejay", description="A GPT-J from raw text to a served model.")
    top.add_argument("-V", "--version", action="version", version=f"bluejay {version('bluejay')}")
    verbs = top.add_subparsers(metavar="VERB", required=True, parser_class=Parser)

    pile = verbs.add_parser("pile", help="text -> token shards").add_subparsers(metavar="STEP", required=True)
    pile_verbs(lambda name, run, help, **kind: add_verb(pile, name, printing(run), help, **kind))

    help = "train a model by a recipe, or on your own text; an interrupted run is resumed"
    train_ = add_verb(verbs, "train", train, help, overrides=True)
    train_options(train_)
    fields = "--train.lr 2e-3, --init MODEL to train one further, --name NAME, --output DIR"
    train_.epilog = f"Any field of the recipe can follow as --section.field value: {fields}."
    new_ = add_verb(verbs, "new", new, "write a recipe for a corpus of your text and one for a model of it, to edit")
    new_.add_argument("directory", type=Path, help="the folder to write them to")
    help = "a text file or a folder of files (default: the folder text there, to be filled)"
    new_.add_argument("text", type=Path, nargs="?", help=help)
    runs_ = add_verb(verbs, "runs", list_runs, "list runs and compare their losses, times and recipes")
    help = "runs, or folders of runs (default: runs)"
    runs_.add_argument("folders", nargs="*", type=Path, default=[Path("runs")], help=help)
    runs_.add_argument("--picture", type=Path, metavar="FILE.png", help="draw their held-out losses over tokens")
    help = "write a model's card from its run's records: data and licences, training, evaluation, memorisation, limits"
    card_options(add_verb(verbs, "card", printing(run_card), help))
    compare_ = add_verb(verbs, "compare", compare, "show a fine-tuned model's answers beside those before the run")
    compare_.add_argument("run", type=Path, help="a run that began with a model and holds out examples: runs/chat")
    help = "other models to ask the same"
    compare_.add_argument("models", nargs="*", default=[], metavar="MODEL", help=help)
    compare_.add_argument("--show", type=at_least(0), default=10, help="questions to show (default: 10)")
    help = "tokens of an answer at most (default: 128)"
    compare_.add_argument("--max-tokens", type=at_least(1), default=128, help=help)
    plan_ = add_verb(verbs, "plan", train_plan, "predict memory, time and cost of a training run", overrides=True)
    plan_.epilog = "Any field of the recipe or the hardware can follow as --section.field value: --hardware.devices 64."
    plan_.add_argument("recipe", type=Path, help="a recipe, such as recipes/train/gpt-j-6b.toml")
    hardware_help = "a description such as recipes/hardware/h100.toml (default: measure this machine)"
    plan_.add_argument("--hardware", type=Path, help=hardware_help)
    plan_.add_argument("--best", action="store_true", help="find the fastest mesh, micro-batch, recomputation")
    generate_ = add_verb(verbs, "generate", generate, "continue a prompt, or write with a model in turns")
    help = "a model directory, a run, an adapter, a .gguf file or the hub's name of a pulled model"
    generate_.add_argument("model", help=help)
    help = "the text to continue; - reads it from standard input; without one an editor opens"
    generate_.add_argument("prompt", nargs="?", help=help)
    add_options(generate_, SamplingParams, without=("logprobs", "prompt_logprobs"))  # only reports, not printed
    generate_.epilog = r"In --stop, \n and \t stand for line breaks and tabs."
    device_options(generate_)

    help = "convert a model from any layout to a Hugging Face directory, or to a .gguf file"
    convert_ = add_verb(verbs, "convert", convert, help)
    help = "a model directory, a run, a .gguf file, a mesh-transformer-jax checkpoint or the hub's name of a pulled one"
    convert_.add_argument("source", help=help)
    help = "the directory to write, or a file that ends in .gguf, for llama.cpp"
    convert_.add_argument("target", type=Path, help=help)
    form = convert_.add_mutually_exclusive_group()
    help = "type of the weights (default: as stored)"
    form.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help=help)
    help = "write 8-bit or 4-bit weights: q8 or q4 to a directory, q8_0 or q4_0 to a .gguf file"
    form.add_argument("--quantize", choices=("q8", "q4", "q8_0", "q4_0"), help=help)
    convert_.add_argument("--overwrite", action="store_true", help="replace the target if it is a model already")
    convert_.add_argument("--calibrate", type=Path, metavar="TEXT", help="calibrate q4 on the activations of this text")
    help = "measure models on tasks, with intervals and comparisons in pairs"
    eval_options(add_verb(verbs, "eval", printing(run_eval), help))
    trace_verbs(lambda name, run, help: add_verb(verbs, name, printing(run), help))
    help = "look inside a model: its activations by name, and what made a prediction"
    lens_options(add_verb(verbs, "lens", printing(run_lens), help))
    info_ = add_verb(verbs, "info", info, "describe a model and the memory it needs")
    help = "a model directory, a run, a .gguf file, the hub's name of a pulled model, or a preset such as gpt-j-6b"
    info_.add_argument("model", help=help)
    pull_ = add_verb(verbs, "pull", pull, "download a model from the hub and verify every file")
    pull_.add_argument("name", help="owner/model, or a short name such as gpt2 or gpt-j-6b; @revision may follow")
    pull_.add_argument("--directory", type=Path, help="directory to write (default: the hub's cache)")
    push_ = add_verb(verbs, "push", push, "send a model or a corpus, with its card, to the hub, and verify every file")
    push_.add_argument("path", type=Path, help="a model directory, a run, an adapter, a .gguf file or a corpus")
    push_.add_argument("name", help="the repository to send it to, OWNER/NAME")
    push_.add_argument("--private", action="store_true", help="make a new repository that only its owner can read")
    help = "serve models through OpenAI's completions API and a web page"
    serve_ = add_verb(verbs, "serve", serve, help, json=False)
    help = "model directories, runs, .gguf files or hub names of pulled models; requests choose one by its name"
    serve_.add_argument("models", nargs="+", metavar="MODEL", help=help)
    device_options(serve_)
    add_options(serve_, ServeSettings, without=("public",))
    public = serve_.add_argument_group("on the open web")
    public.add_argument("--public", action="store_true", help="limit what each client may ask for")
    add_options(public, PublicSettings, without=("state",))
    help = "serve models/bluejay-nano, or where it is not there the quickstart model, which is made first if need be"
    demo_ = add_verb(verbs, "demo", demo, help, json=False)
    add_options(demo_, ServeSettings, only=("host", "port"))

    recipes_ = add_verb(verbs, "recipes", recipes, "list the recipes that come with bluejay, or copy some to edit")
    recipes_.add_argument("names", nargs="*", metavar="NAME", help="a recipe to copy, such as train/quickstart")
    recipes_.add_argument("--to", type=Path, default=Path("recipes"), help="the folder to copy to (default: recipes)")
    completion_ = add_verb(verbs, "completion", completion, "print the completion of a shell", json=False)
    completion_.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="the shell that will read it")
    completion_.epilog = (
        "bash reads it as ~/.local/share/bash-completion/completions/bluejay, zsh as _bluejay in a folder of $fpath, "
        "and tcsh where ~/.tcshrc sources it."
    )
    return top


def device_options(verb: argparse.ArgumentParser) -> None:
    """Add the options that say where a model computes."""
    help = "cpu, cuda, cuda:1, mps, ... (default: a GPU of CUDA or ROCm where there is one, else the CPU)"
    verb.add_argument("--device", default="auto", help=help)
    help = "have torch compile its steps, which takes a minute at first and makes later steps faster"
    verb.add_argument("--compile", action="store_true", help=help)


def add_verb(
    verbs: Any,
    name: str,
    function: Callable[[argparse.Namespace, list[str]], None],
    help: str,
    overrides: bool = False,
    json: bool = True,
) -> argparse.ArgumentParser:
    """Add a verb with the options that all verbs have; `--json` only where the verb has a result to print."""
    epilog = "Any field of the recipe can follow as --section.field value, for example --seed 7." if overrides else None
    verb = verbs.add_parser(name, help=help, description=help, epilog=epilog)
    if json:
        verb.add_argument("--json", action="store_true", help="print the result as one JSON object on the last line")
    verb.add_argument("-v", "--verbose", action="store_true", help="show the traceback of an error")
    verb.set_defaults(verb=function, takes_overrides=overrides, parser=verb)
    return verb


def report(options: argparse.Namespace, text: str, values: dict[str, Any]) -> None:
    """Print a result on standard output, as text or as JSON."""
    print(json_of(values, default=str) if options.json else text)


def printing(run: Callable[..., tuple[str, dict[str, Any]]]) -> Callable[[argparse.Namespace, list[str]], None]:
    """A verb that prints the result of `run`, which is a text and values for JSON."""
    return lambda options, overrides: report(options, *run(options, overrides))


def train(options: argparse.Namespace, overrides: list[str]) -> None:
    """`bluejay train`: of several processes the first prints the result."""
    result = run_train(options, overrides)
    if is_first():
        report(options, *result)


def new(options: argparse.Namespace, _: list[str]) -> None:
    """`bluejay new`."""
    from bluejay.own_text import new as write

    corpus, training = write(options.directory, options.text)
    fill = "" if options.text else f"put text files into {options.directory / 'text'}, "
    commands = ["bluejay", "pile", "build", str(corpus)], ["bluejay", "train", str(training)]
    text = f"{fill}edit {corpus} and {training}, then: {' && '.join(map(shlex.join, commands))}"
    report(options, text, {"corpus": str(corpus), "training": str(training)})


def list_runs(options: argparse.Namespace, _: list[str]) -> None:
    """`bluejay runs`."""
    from bluejay.train.report.runs import as_dict, draw_runs, find_runs, table

    if options.picture is not None and options.picture.suffix.lower() != ".png":
        raise ValueError(f"--picture is {options.picture}; it must end in .png")
    if options.picture is not None:
        require_writable(options.picture)
    found = find_runs(options.folders)
    if options.picture is not None:
        draw_runs(found, options.picture)
    report(options, shown(table(found)), as_dict(found))


def compare(options: argparse.Namespace, _: list[str]) -> None:
    """`bluejay compare`."""
    from bluejay.train.report.comparison import compare as run

    found = run(options.run, options.models, options.show, options.max_tokens)
    report(options, found.table(), found.as_dict())


def train_plan(options: argparse.Namespace, overrides: list[str]) -> None:
    """`bluejay plan`."""
    from bluejay import recipe as recipes
    from bluejay.plan.hardware import load, split_overrides
    from bluejay.plan.plan import plan, shape_of
    from bluejay.plan.search import best
    from bluejay.train.recipe import TrainRecipe

    recipe_overrides, hardware_overrides = split_overrides(overrides)
    recipe = recipes.load(TrainRecipe, options.recipe, recipe_overrides)
    hardware = load(options.hardware, hardware_overrides, *shape_of(recipe))
    planned = best(recipe, hardware) if options.best else plan(recipe, hardware)
    report(options, planned.table(), planned.as_dict())


def generate(options: argparse.Namespace, _: list[str]) -> None:
    """`bluejay generate`: print one sample as it is generated, several when all are complete; or open the editor."""
    from bluejay.infer.model import load
    from bluejay.terminal.settings import value_from

    values = given(options, SamplingParams)
    stop = tuple(value_from("stop", text) for text in values.pop("stop", ()))
    params = SamplingParams(**values, stop=stop)
    if options.prompt is None:
        if options.json:
            raise ValueError("--json needs a prompt; - reads it from standard input")
        from bluejay.terminal.editor import open_editor

        print(shown(open_editor(lambda: load(options.model, options.device, compiled=options.compile), params)))
        return
    prompt = text_given(options.prompt)
    model = load(options.model, options.device, compiled=options.compile)
    if params.n == 1 and not options.json:
        chunks = model.stream(prompt, params)  # a prompt that is refused is not printed
        print(shown(prompt), end="", flush=True)
        for chunk in chunks:
            print(shown(chunk.text), end="", flush=True)
        print()
        return
    texts = model.generate(prompt, params)
    samples = (f"[{i}] {prompt}{text}" for i, text in enumerate(texts, 1))
    report(options, shown("\n\n".join(samples)), {"texts": texts})


def shown(text: str) -> str:
    """A text for standard output: as it is for a file, and one that a terminal does not obey for a terminal."""
    return for_terminal(text) if sys.stdout.isatty() else text


def convert(options: argparse.Namespace, _: list[str]) -> None:
    """`bluejay convert`."""
    if options.target.suffix.lower() in WEIGHTS:
        raise ValueError(
            f"{options.target} is a name for a file of weights; name a folder, or a file that ends in .gguf"
        )
    import torch

    from bluejay.gpt.formats.layouts import convert as write
    from bluejay.gpt.formats.locate import locate

    dtype = options.dtype and getattr(torch, options.dtype)
    source = locate(options.source)
    write(source, options.target, dtype, options.quantize, options.calibrate, options.overwrite)
    report(options, f"in {options.target}", {"file" if options.target.is_file() else "directory": options.target})


def info(options: argparse.Namespace, _: list[str]) -> None:
    """`bluejay info`."""
    from bluejay.gpt.info import info as read

    found = read(options.model)
    report(options, shown(found.summary()), found.as_dict())


def pull(options: argparse.Namespace, _: list[str]) -> None:
    """`bluejay pull`."""
    from bluejay.gpt.formats.hub import pull as download

    directory = download(options.name, options.directory)
    report(options, f"in {directory}", {"directory": directory})


def push(options: argparse.Namespace, _: list[str]) -> None:
    """`bluejay push`."""
    from bluejay.push import push as send

    url = send(options.path, options.name, options.private)
    report(options, f"at {url}", {"url": url})


def serve(options: argparse.Namespace, _: list[str]) -> None:
    """`bluejay serve`."""
    settings = settings_from(options)
    from bluejay.serve.replicas import serve_named

    serve_named(options.models, settings, options.device, options.compile)


def demo(options: argparse.Namespace, _: list[str]) -> None:
    """`bluejay demo`."""
    from bluejay.demo import demo as run

    run(ServeSettings(**given(options, ServeSettings)))


def recipes(options: argparse.Namespace, _: list[str]) -> None:
    """`bluejay recipes`."""
    from bluejay import shipped

    if options.names:
        files = [str(path) for name in options.names for path in shipped.copy(name, options.to)]
        return report(options, "\n".join(files), {"files": files})
    found = shipped.recipes()
    width = max(map(len, found))
    report(options, "\n".join(f"{name:{width}}  {summary}" for name, summary in found.items()), {"recipes": found})


def completion(options: argparse.Namespace, _: list[str]) -> None:
    """`bluejay completion`."""
    import shtab

    from bluejay import shipped
    from bluejay.evals.suites import OTHER_SUITES, SUITES

    names = {"suite": (*SUITES, *OTHER_SUITES), "names": tuple(shipped.recipes())}  # by the option that takes them
    known = parser()
    verbs = verbs_of(known)
    assert verbs is not None
    for verb in verbs._get_subactions():
        if verb.dest in TWO_WORDS:  # a shell would take its words for two verbs
            verb.help = argparse.SUPPRESS
    for action in (action for one in all_parsers(known) for action in one._actions):
        if action.dest in names:
            action.choices = names[action.dest]
        elif action.nargs != 0 and action.choices is None and action.type in (None, str, Path):
            vars(action)["complete"] = shtab.FILE
    print(shtab.complete(known, options.shell))
