"""Do the documents that `bluejay trace influence` names matter to the model? It is trained again without their loss.

    python benchmarks/influence.py [CORPUS] [--seeds 1,2] [--folder DIR] [--launcher COMMAND]

The documents of the corpus (default: data/quickstart) are cut into documents of about `PIECE` tokens, so that sets of
them are of one size. A model by the quickstart's recipe, with half of its layers and a quarter of its vocabulary, so
that a training takes seconds, learns `TOKENS` of them once. The queries are `QUERIES` passages of other documents. For
each query a set of documents is chosen by influence and one by BM25, and `CONTROLS` sets at random for all queries
together; each is filled in the order of the scores up to `MASKED` tokens. The model is then trained again, from the
same weights on the same batches, with the loss of the set masked (`masked` in the recipe). What counts is by how much
the loss of the query rises.

Each training adds a line to benchmarks/results/influence/SEED.jsonl and is not repeated; COMMAND, such as "nice",
begins each. The figures are printed at the end.
"""

import argparse
import dataclasses
import json
import math
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from report import CORPUS

from bluejay import recipe as recipes
from bluejay.evals.estimates import Estimate, difference, mean
from bluejay.gpt.formats.layouts import open_model
from bluejay.gpt.model import GPT
from bluejay.tokenizer import Tokenizer
from bluejay.tokens import TokenShard, TokenWriter
from bluejay.trace import Influence
from bluejay.trace.indexing import index
from bluejay.trace.influence.learnt import learnt
from bluejay.train.data.content import hash_of_shard
from bluejay.train.recipe import TrainRecipe

RECIPE = Path(__file__).parents[1] / "recipes" / "train" / "quickstart.toml"
RESULTS = Path(__file__).parent / "results" / "influence"
LAYERS, VOCABULARY = 2, 2048
PIECE, SHORTEST, QUERY = 512, 200, 160
TOKENS, MASKED = 307_200, 12_288
QUERIES, CONTROLS = 20, 5
K1, B = 1.2, 0.75
"""BM25's parameters, as Lucene has them."""


def write_corpus(source: Path, folder: Path) -> None:
    """The corpus that is learnt, with an index, and its queries in the split `valid`."""
    known, shard = Tokenizer.load(source), TokenShard(source / "tokens" / "train")
    texts = [known.decode(shard[number][:-1].tolist()) for number in range(len(shard))]
    tokenizer = Tokenizer.train(texts, vocab_size=VOCABULARY)
    whole = (np.array(ids) for ids in tokenizer.encode_batch(texts))
    pieces = [piece for ids in whole for piece in np.array_split(ids, max(1, round(len(ids) / PIECE)))]
    order = [i for i in np.random.default_rng(0).permutation(len(pieces)) if len(pieces[i]) >= SHORTEST]
    tokenizer.save(folder)
    with TokenWriter(folder / "tokens" / "train", tokenizer.vocab_size) as writer:
        while writer.length <= TOKENS:
            writer.add([*pieces[order.pop()][: PIECE - 1], tokenizer.eot])
    with TokenWriter(folder / "tokens" / "valid", tokenizer.vocab_size) as writer:
        for i in order[:QUERIES]:
            writer.add([*pieces[i][:QUERY], tokenizer.eot])
    index(folder)


def bm25(documents: Sequence[NDArray[np.integer]], queries: Sequence[NDArray[np.integer]]) -> NDArray[np.float64]:
    """The scores (queries, documents) of BM25 over token ids (Robertson and Zaragoza 2009, equation 3.15)."""
    counts = [Counter(ids.tolist()) for ids in documents]
    frequency = Counter(token for count in counts for token in count)
    lengths = np.array([len(ids) for ids in documents])
    norm, n = K1 * (1 - B + B * lengths / lengths.mean()), len(documents)
    scores = np.zeros((len(queries), n))
    for row, query in enumerate(queries):
        for token, often in Counter(query.tolist()).items():
            tf = np.array([count[token] for count in counts])
            idf = math.log(1 + (n - frequency[token] + 0.5) / (frequency[token] + 0.5))
            scores[row] += often * idf * tf * (K1 + 1) / (tf + norm)
    return scores


def filled(order: Sequence[int], tokens: NDArray[np.int64]) -> list[int]:
    """The first documents of an order that together have at most `MASKED` tokens; one that is too long is passed over,
    until the set is within half a document of full."""
    chosen, total = [], 0
    for document in order:
        if tokens[document] and total + tokens[document] <= MASKED:
            chosen.append(document)
            total += int(tokens[document])
        if total > MASKED - SHORTEST:
            break
    return chosen


def recipe_of(folder: Path, seed: int, name: str, masked: Sequence[int] = ()) -> TrainRecipe:
    """The quickstart's recipe for the corpus in a folder, with the loss of some documents masked."""
    values: dict[str, Any] = {"output": str(folder / name), "seed": seed, "name": name}
    values |= {"model.n_layer": LAYERS, "data.valid": str(folder / "corpus/tokens/valid"), "train.tokens": TOKENS}
    values |= {"evaluate.every_steps": 10**6, "evaluate.tokens": 2048, "checkpoint.every_steps": 10**6}
    overrides = [word for key, value in values.items() for word in (f"--{key}", str(value))]
    read = recipes.load(TrainRecipe, RECIPE, overrides)
    part = dataclasses.replace(read.data.train[0], shards=str(folder / "corpus/tokens/train"), masked=tuple(masked))
    return dataclasses.replace(read, data=dataclasses.replace(read.data, train=(part,)))


def trained(recipe: TrainRecipe, launcher: Sequence[str]) -> Path:
    """Train by a recipe, in a process of its own. Returns the model."""
    path = recipe.directory.with_suffix(".toml")
    recipes.save(recipe, path)
    command = [*launcher, sys.executable, "-m", "bluejay", "train", str(path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return recipe.directory / "model"


@torch.no_grad()
def losses(path: Path, queries: Sequence[NDArray[np.integer]], eot: int) -> list[float]:
    """The loss of each query in nats a token."""
    stored = open_model(path)
    model = GPT(stored.config)
    for name, weight in model.named_parameters():
        weight.copy_(stored.read(name).float())
    texts = [torch.tensor([[eot, *ids.tolist()]]) for ids in queries]
    return [float(F.cross_entropy(model(ids[:, :-1])[0], ids[0, 1:])) for ids in texts]


def measure(source: Path, seed: int, folder: Path, launcher: Sequence[str]) -> None:
    """All trainings of a seed that its results do not have yet."""
    if not (folder / "corpus" / "index").exists():
        write_corpus(source, folder / "corpus")
    tokenizer = Tokenizer.load(folder / "corpus")
    train, valid = (TokenShard(folder / "corpus" / "tokens" / name) for name in ("train", "valid"))
    queries = [valid[number][:-1] for number in range(QUERIES)]
    path, content = RESULTS / f"{seed}.jsonl", hash_of_shard(folder / "corpus" / "tokens" / "train")
    lines = read(path)
    if any(line["corpus"] != content for line in lines):
        raise ValueError(f"{path} is of another corpus; remove it to measure this one")
    known = {(line["chosen"], line["query"]) for line in lines}

    model = trained(recipe_of(folder, seed, f"base-{seed}"), launcher)
    [of] = learnt(model).reads
    tokens = of.tokens_read

    def again(chosen: str, query: int | None, order: Sequence[int]) -> None:
        """Train again without the documents of an order, unless that was done."""
        if (chosen, query) in known:
            return
        documents, recipe = filled(order, tokens), None
        if documents:
            recipe = recipe_of(folder, seed, f"again-{seed}", documents)
            shutil.rmtree(recipe.directory, ignore_errors=True)
        found = losses(model if recipe is None else trained(recipe, launcher), queries, tokenizer.eot)
        line: dict[str, Any] = {"corpus": content, "chosen": chosen, "query": query, "documents": documents}
        line |= {"tokens": int(tokens[documents].sum()), "losses": found}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    again("nothing", None, [])
    for number in range(CONTROLS):
        again("random", number, np.random.default_rng([seed, number]).permutation(len(train)).tolist())
    for query, scores in enumerate(bm25([train[i][:-1] for i in range(len(train))], queries)):
        again("bm25", query, np.argsort(-scores).tolist())
    influence = Influence(model)
    for query, ids in enumerate(queries):
        [some] = influence.scores(ids)
        again("influence", query, some.documents[np.argsort(-some.scores)].tolist())


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def rises(lines: Sequence[dict[str, Any]]) -> dict[str, NDArray[np.float64]]:
    """By how much the loss of each query rose, (queries,), with each way to choose; at random, on average."""
    [whole] = [np.array(line["losses"]) for line in lines if not line["documents"]]
    random = [np.array(line["losses"]) - whole for line in lines if line["chosen"] == "random"]
    found = {"random": np.mean(random, axis=0)}
    for name in ("influence", "bm25"):
        own = {line["query"]: line["losses"][line["query"]] for line in lines if line["chosen"] == name}
        found[name] = np.array([own[query] for query in range(QUERIES)]) - whole
    return found


def figures(paths: Sequence[Path]) -> dict[str, Estimate]:
    """The rise of the loss with each way to choose, and the differences, over the queries of all seeds; a query counts
    as one group of dependent figures."""
    found = [rises(read(path)) for path in paths]
    of = {name: np.concatenate([one[name] for one in found]) for name in ("influence", "bm25", "random")}
    groups = list(range(QUERIES)) * len(paths)
    told: dict[str, Estimate] = {name: mean(values, groups) for name, values in of.items()}
    for name, other in (("influence", "random"), ("bm25", "random"), ("influence", "bm25")):
        told[f"{name} - {other}"] = difference(of[name], of[other], groups)
    return told


def main() -> None:
    """Train what is missing, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="?", type=Path, default=CORPUS)
    parser.add_argument("--seeds", default="1,2")
    parser.add_argument("--folder", type=Path, help="where corpus and models are kept (default: a temporary folder)")
    parser.add_argument("--launcher", default="", help="a command that begins each training")
    parser.add_argument("--only-figures", action="store_true", help="print the figures of the results that are there")
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    with tempfile.TemporaryDirectory() as temporary:
        for seed in () if options.only_figures else seeds:
            measure(options.corpus, seed, options.folder or Path(temporary), shlex.split(options.launcher))
    for name, estimate in figures([RESULTS / f"{seed}.jsonl" for seed in seeds]).items():
        print(f"{name:20} {estimate.value:+.4f} nats a token ({estimate.low:+.4f} to {estimate.high:+.4f})")


if __name__ == "__main__":
    main()
