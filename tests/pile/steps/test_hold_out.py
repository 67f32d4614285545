"""Every component has held-out text, and none of it is in the training text."""

import itertools
import random
from collections.abc import Callable

import numpy as np
import pyarrow.parquet as pq
import pytest

from bluejay import recipe as recipes
from bluejay.pile.build import BuildResult, build
from bluejay.pile.recipe import PileRecipe
from bluejay.pile.steps.hold_out import Cutter, piece_bounds

WORDS = [f"{a}{b}{c}" for a, b, c in itertools.product(["ba", "to", "mi"], ["ra", "lu", "ne"], ["k", "s", "n", "x"])]


def prose(size: int, seed: int) -> str:
    """Text of about `size` bytes in lines and paragraphs, no line twice."""
    draw, lines, length = random.Random(seed), [], 0
    while length < size:
        line = f"{seed}.{len(lines)} " + " ".join(draw.choices(WORDS, k=draw.randint(4, 14)))
        lines.append(line + ("\n" if draw.random() < 0.2 else ""))
        length += len(lines[-1]) + 1
    return "\n".join(lines) + "\n"


@pytest.fixture
def corpus(tmp_path, byte_tokenizer_folder) -> Callable[..., BuildResult]:
    """Builds a corpus of a component per key, each of some text files."""

    def built(files: dict[str, list[str]], **values) -> BuildResult:
        components = []
        for name, texts in files.items():
            for number, text in enumerate(texts):
                path = tmp_path / name / f"{number}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            source = [{"kind": "text", "path": f"{tmp_path}/{name}/*.txt"}]
            components.append({"name": name, "source": source, "licence": "CC0-1.0"})
        recipe = {
            "name": "c",
            "output": str(tmp_path / "built"),
            "component": components,
            "tokenizer": {"path": byte_tokenizer_folder},
            **values,
        }
        return build(recipes.check(PileRecipe, recipe, "test"))

    return built


def texts_of(built: BuildResult, split: str) -> list[str]:
    return pq.read_table(built.directory / "documents" / f"{split}.parquet")["text"].to_pylist()


def lines_of(built: BuildResult, split: str) -> set[str]:
    return {line for text in texts_of(built, split) for line in text.splitlines() if line.strip()}


@pytest.mark.parametrize("size", [20_000, 300_000, 2_000_000])
def test_one_document_is_divided_between_training_and_held_out_text(size, corpus, capsys):
    text = prose(size, 1)
    built = corpus({"book": [text]}, split={"valid": 0.01, "test": 0})
    counts = built.report.components["book"].splits
    assert counts["valid"].bytes >= min(64_000, size // 2 - 2000) and not counts["test"].documents
    assert counts["train"].bytes + counts["valid"].bytes > 0.85 * size > 0.4 * size < 2 * counts["train"].bytes + 9000
    assert all(piece in text for split in ("train", "valid") for piece in texts_of(built, split))
    train, valid = lines_of(built, "train"), lines_of(built, "valid")
    assert train and valid and not train & valid and train | valid <= set(text.splitlines())
    assert "kB of valid text was cut out of 1 training document;" in capsys.readouterr().err


@pytest.mark.parametrize("sizes", [(20,), (20, 20), (1500, 1500), (2000, 300, 20), (1900, 900, 700, 20, 20)])
@pytest.mark.parametrize("split", [{"valid": 0.02, "test": 0}, {}])
def test_a_component_of_a_few_short_documents_keeps_at_least_half_its_text_to_train_on(sizes, split, corpus):
    files = {"few": [prose(size, number) for number, size in enumerate(sizes)], "book": [prose(90_000, 9)]}
    splits = corpus(files, split=split).report.components["few"].splits
    assert sum(part.documents for part in splits.values()) == len(sizes)
    assert 2 * splits["train"].bytes >= sum(part.bytes for part in splits.values())
    assert splits["valid"].documents >= (len(sizes) > 1)


@pytest.mark.parametrize("documents", [1, 2, 3])
@pytest.mark.parametrize("kind", ["without a break", "a late paragraph"])
def test_a_piece_that_is_most_of_its_document_is_held_out_only_where_half_the_text_stays(documents, kind, corpus):
    def text(number: int) -> str:
        han = "".join(map(chr, random.Random(number).choices(range(0x4E00, 0x9000), k=2000)))
        return f"{han}\n\n{han[:80]}" if kind == "a late paragraph" else f"{han}{han[:100]}"

    files = {"few": [text(number) for number in range(documents)], "book": [prose(90_000, 9)]}
    splits = corpus(files).report.components["few"].splits
    total = sum(len(text.encode()) for text in files["few"])
    assert splits["train"].bytes > 0.4 * total
    assert 0 < sum(splits[name].bytes for name in ("valid", "test")) <= total / 2


def test_pieces_end_at_paragraphs_and_a_gap_keeps_them_apart(corpus):
    text = prose(400_000, 2)
    built = corpus({"book": [text]}, split={"valid": 0.01, "test": 0.01})
    spans = sorted(
        (text.index(piece), text.index(piece) + len(piece), split)
        for split in ("train", "valid", "test")
        for piece in texts_of(built, split)
    )
    apart = [b[0] - a[1] for a, b in itertools.pairwise(spans) if "train" in (a[2], b[2])]
    assert len(apart) > 4 and min(apart) >= 256 and max(apart) < 1000
    assert {split for *_, split in spans} == {"train", "valid", "test"}
    assert all(text[begin - 2 : begin] == "\n\n" for begin, _, split in spans if split != "train" and begin)


def test_every_component_has_its_part_and_a_build_gives_it_again(corpus, tmp_path):
    files = {
        "few": [prose(150_000, 3), prose(90_000, 4)],
        "many": [prose(3000, seed) for seed in range(100, 120)],
        "tiny": [prose(900, 5), prose(700, 6), prose(800, 7)],
        "one line": [" ".join(random.Random(8).choices(WORDS, k=40_000))],
    }
    built = corpus(files, split={"valid": 0.01, "test": 0})
    for name, component in built.report.components.items():
        total = sum(len(text) for text in files[name])
        assert component.splits["valid"].bytes >= min(64_000, 0.25 * total), name
        assert component.splits["train"].documents >= 1
        component.require_conserved(name, component.kept)
    assert not lines_of(built, "train") & lines_of(built, "valid")
    sums = (built.directory / "SHA256SUMS").read_bytes()
    again = corpus(files, split={"valid": 0.01, "test": 0}, output=str(tmp_path / "again"))
    table = [line for line in (again.directory / "SHA256SUMS").read_text().splitlines() if "recipe" not in line]
    assert table == [line for line in sums.decode().splitlines() if "recipe" not in line]


def test_near_copies_that_are_all_kept_are_never_cut(corpus):
    copy = prose(100_000, 9)
    files = {"c": [copy, copy + "the end", copy + "the other end", prose(200_000, 10)]}
    built = corpus(files, dedup={"near": {}, "remove": False}, split={"valid": 0.0001, "test": 0})
    assert sorted(len(text) for text in texts_of(built, "train"))[-3:] == sorted(map(len, files["c"][:3]))
    assert built.report.components["c"].splits["valid"].bytes >= 64_000
    assert not lines_of(built, "train") & lines_of(built, "valid")


def test_a_near_copy_in_another_component_keeps_a_document_whole(corpus):
    texts = [prose(3000, number) for number in range(3)]
    files = {"a": texts, "b": [f"{text}the end" for text in texts], "c": [prose(90_000, 9)]}
    built = corpus(files, dedup={"near": {}, "remove": False}, split={"valid": 0.0001, "test": 0.0001})
    assert {*files["a"], *files["b"]} <= set(texts_of(built, "train"))
    assert not lines_of(built, "train") & (lines_of(built, "valid") | lines_of(built, "test"))


def test_enough_held_out_documents_are_left_as_they_are_and_nothing_is_cut_where_nothing_is_wanted(corpus, tmp_path):
    files = {"many": [prose(8000, seed) for seed in range(200, 230)]}
    built = corpus(files, split={"valid": 0.4, "test": 0})
    assert built.report.components["many"].held_out == {} and built.report.components["many"].added == 0
    for number, split in enumerate(({"valid": 0, "test": 0}, {"valid": 0.001, "test": 0, "least": "0 kB"})):
        built = corpus(files, split=split, output=str(tmp_path / str(number)))
        assert built.report.components["many"].added == 0


@pytest.mark.parametrize("words", [WORDS, ["中文" * 9]])
def test_of_a_text_of_one_line_little_is_lost_between_training_and_held_out_text(words):
    text = "Title\n\n" + (" " * (words is WORDS)).join(random.Random(8).choices(words, k=40_000)) + "\n"
    pieces = Cutter(np.array([0, 9000, 9000]), 0.1, 1, 10**9).divide(text, 5)
    assert {split for _, split in pieces} == {0, 1, 2}
    assert 256 <= len(text) - sum(len(piece) for piece, _ in pieces) <= 2 * 512 * len(pieces)
    assert all(piece[0] != " " and piece in text for piece, _ in pieces)


@pytest.mark.parametrize("text", ["", "x", "x" * 5000, "one\n" * 900, "a b " * 4000, "é\n\n" * 9000])
def test_pieces_cover_a_text(text):
    bounds = piece_bounds(text)
    assert bounds[0] == 0 and bounds[-1] == len(text) and bounds == sorted(bounds)
    assert all(b - a >= 1024 for a, b in itertools.pairwise(bounds[:-1]))
    cutter = Cutter(np.array([0, 10**9, 0]), 0.3, 1, 10**9)
    assert all(piece.strip() for piece, _ in cutter.divide(text, 7))
