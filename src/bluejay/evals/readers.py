"""Readers: from the rows of a test set to questions, with the prompts of lm-evaluation-harness or of OLMES."""

import json
import math
import re
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby, zip_longest
from pathlib import Path
from string import Formatter
from typing import Any

from bluejay.evals.tasks import Continuation, Generation, Question
from bluejay.files import parse_json
from bluejay.testsets.rows import UNCONDITIONAL, Row, documents, rows
from bluejay.tokenizer import well_formed

BLOCK = "\n\n"
"""Between two examples."""


def choices(id: str, context: str, texts: Sequence[str], gold: int, cluster: str = "") -> Question:
    """A question whose choices each continue its context after a space."""
    requests = tuple(Continuation(context, f" {text}") for text in texts)
    return Question(id, requests, gold, choices=tuple(texts), cluster=cluster)


def lambada(_: int) -> Iterator[Question]:
    """The last word of each passage (lm-evaluation-harness, lambada_openai)."""
    for number, (_path, row) in enumerate(rows("lambada")):
        word = row["request"]["continuation"]
        yield Question(str(number), (Continuation(row["request"]["context"], word),), choices=(word.strip(),))


def hellaswag(_: int) -> Iterator[Question]:
    """Endings of a description, without WikiHow's markup (lm-evaluation-harness, hellaswag)."""
    for number, row in enumerate(documents("hellaswag")):
        context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
        endings = [without_markup(ending) for ending in row["endings"]]
        yield choices(str(number), without_markup(context), endings, int(row["label"]), row["source_id"])


def without_markup(text: str) -> str:
    """A text of HellaSwag as the harness shows it."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def piqa(_: int) -> Iterator[Question]:
    """Two ways to a goal (lm-evaluation-harness, piqa)."""
    for number, row in enumerate(documents("piqa")):
        context = f"Question: {row['goal']}\nAnswer:"
        yield choices(str(number), context, [row["sol1"], row["sol2"]], row["label"], row["goal"])


def winogrande(_: int) -> Iterator[Question]:
    """The rest of a sentence after each of two fillers (partial scoring: Trinh and Le 2018; harness, winogrande)."""
    for number, row in enumerate(documents("winogrande")):
        before, after = row["sentence"].split("_", 1)
        fillers = (row["option1"], row["option2"])
        requests = tuple(Continuation(before + filler, f" {after.strip()}") for filler in fillers)
        yield Question(str(number), requests, int(row["answer"]) - 1, choices=fillers)


def rendered(name: str, unconditional: bool, shots: int) -> Iterator[Question]:
    """Questions with the prompts that the test set brings, and the last `shots` of its examples.

    The requests of a question are those of its choices, then, if `unconditional`, those that score the choices without
    the question, which bear a number of their own in these files.
    """
    asked = by_document(name)
    n_left_out = max(0, examples_in(asked) - shots)
    for number, requests in asked.items():
        if number >= UNCONDITIONAL:
            continue
        alone = asked.get(number + UNCONDITIONAL, []) if unconditional else []
        doc, label = requests[0]["doc"], requests[0]["label"]
        parts = tuple(continuation(row, n_left_out) for row in requests)
        without = tuple(continuation(row, 0) for row in alone)
        texts = tuple(doc["choices"]) if len(doc.get("choices", ())) == len(parts) else ()
        texts = texts or tuple(part.text.strip() for part in parts)
        yield Question(str(number), parts + without, label, choices=texts, cluster=passage_of(doc))


def passage_of(doc: Row) -> str:
    """What other questions may share with this one: the text before `Question:` (BoolQ), or nothing."""
    before, found, _ = str(doc.get("query", "")).partition("\nQuestion: ")
    return before if found else ""


@lru_cache(maxsize=1)  # fewer examples of the same test set may be asked for next
def by_document(name: str) -> dict[int, list[Row]]:
    """The rows of each document of a test set, by its number."""
    found: dict[int, list[Row]] = {}
    for _, row in rows(name):
        found.setdefault(row["doc_id"], []).append(row)
    return found


def examples_in(asked: dict[int, list[Row]]) -> int:
    """The number of examples before each question: of the blocks that begin a prompt and that most prompts have at the
    same place. Not all do, because a question that is itself among the examples has another one instead."""
    prompts = [of[0]["request"]["context"].split(BLOCK)[:-1] for number, of in asked.items() if number < UNCONDITIONAL]
    columns = enumerate(zip_longest(*prompts))
    return next((at for at, column in columns if not is_of_most(column)), max(map(len, prompts), default=0))


def is_of_most(blocks: Sequence[str | None]) -> bool:
    """Whether more than half of the blocks are there and equal."""
    [(block, count)] = Counter(blocks).most_common(1)
    return block is not None and 2 * count > len(blocks)


def continuation(row: Row, n_left_out: int) -> Continuation:
    """What a row asks, without the first examples of its prompt."""
    request = row["request"]
    return Continuation(without_first(request["context"], n_left_out), request["continuation"])


def without_first(prompt: str, n_examples: int) -> str:
    """A prompt without its first examples."""
    return prompt.split(BLOCK, n_examples)[-1]


LETTERS = "ABCDE"


def mmlu(letters: bool, shots: int) -> Iterator[Question]:
    """Questions of 57 subjects with examples of the same subject, in OLMES's cloze form or with `letters`."""

    def prompt(row: Row) -> str:
        listed = [f"\n {letter}. {choice}" for letter, choice in zip(LETTERS, row["choices"], strict=False)]
        return f"Question: {row['question'].strip()}{''.join(listed) if letters else ''}\nAnswer:"

    def answers(row: Row) -> Sequence[str]:
        return LETTERS[: len(row["choices"])] if letters else row["choices"]

    examples = {
        subject: [f"{prompt(row)} {answers(row)[row['answer']]}{BLOCK}" for _, row in found]
        for subject, found in groupby(rows("mmlu_examples"), lambda pair: pair[1]["subject"])
    }
    for number, row in enumerate(documents("mmlu")):
        subject = row["subject"]
        about = f"The following are questions (with answers) about {subject.replace('_', ' ')}.{BLOCK}" if shots else ""
        context = about + "".join(examples[subject][:shots]) + prompt(row)
        yield choices(f"{subject}/{number}", context, answers(row), row["answer"], subject)


def triviaqa(shots: int) -> Iterator[Question]:
    """Questions that are answered in a few words. The first rows are the examples, and are not asked."""
    found = list(documents("triviaqa"))
    examples = "".join(f"Question: {row['question']}\nAnswer: {row['answer']['value']}{BLOCK}" for row in found[:shots])
    for number, row in enumerate(found[MOST_EXAMPLES:]):
        prompt = f"{examples}Question: {row['question']}\nAnswer:"
        answers = tuple(row["answer"]["normalized_aliases"])
        yield Question(str(number), (Generation(prompt, ("\n",), 24),), answers=answers)


MOST_EXAMPLES = 5
"""Rows at the head of a test set without examples of its own that serve as examples and are never asked."""


def gsm8k(shots: int) -> Iterator[Question]:
    """School problems that are answered in steps; the last number counts."""
    asked = by_document("gsm8k")
    n_left_out = max(0, examples_in(asked) - shots)
    for number, (row, *_) in enumerate(asked.values()):
        prompt = without_first(row["request"]["context"], n_left_out)
        yield Question(
            str(number), (Generation(prompt, ("Question:", "\n\n"), 256),), answers=(row["doc"]["short_answer"],)
        )


def crows_pairs(_: int) -> Iterator[Question]:
    """Sentences with a word about one group, and with one about another in its place; no choice is right."""
    for row in documents("crows_pairs"):
        if "[MASK]" not in row["sentence"]:
            continue
        before, after = row["sentence"].split("[MASK]", 1)
        fillers = (row["mask1"], row["mask2"])
        requests = tuple(Continuation("", before + filler + after) for filler in fillers)
        yield Question(str(row[""]), requests, choices=fillers, cluster=row["bias_type"])


def bbq(_: int) -> Iterator[Question]:
    """Questions about two people, one of whom a prejudice suggests, and a choice that nothing is known."""
    for number, row in enumerate(documents("bbq")):
        texts = [line.partition(". ")[2] for line in row["options"].split("\n")]
        if row["answer"][0] not in texts:
            continue
        question = row["question"].partition("\n")[0].strip()
        context = f"{row['passage']}\nQuestion: {question}\nAnswer:"
        yield choices(str(number), context, texts, texts.index(row["answer"][0]), row["passage"])


def own_questions(path: str, prompt: str, choices_from: str, gold: str) -> Iterator[Question]:
    """The questions of a user's own JSON Lines; `prompt` is a format string over each line's fields. A choice stands
    after a space, unless the prompt ends in white space or the choice begins with some. Half a surrogate pair, which
    has no UTF-8, becomes U+FFFD, as for every model.

    Raises ValueError, naming the line: it is not UTF-8 or no object, lacks a field or has a value of another kind
    there, or its right choice is none of its choices.
    """
    for number, line in enumerate(Path(path).read_bytes().removeprefix(BOM_UTF8).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line.decode())
            if not isinstance(row, dict):
                raise ValueError(f"each line must be a JSON object, and this one is {shortened(row)}")
            texts, index = choices_of(row[choices_from], choices_from), right_of(row[gold], gold, row[choices_from])
            context = well_formed(Fields().vformat(prompt, (), row))
            spaces = ["" if context[-1:].isspace() or text[0].isspace() else " " for text in texts]
            requests = tuple(Continuation(context, space + text) for space, text in zip(spaces, texts, strict=True))
            yield Question(str(number), requests, index, choices=tuple(texts))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}, line {number} is not UTF-8: {error.reason} at byte {error.start}") from None
        except json.JSONDecodeError as error:
            where = f"{error.msg} at column {error.colno}; the data are JSON Lines, an object in each line"
            raise ValueError(f"{path}, line {number} is no JSON object: {where}") from None
        except KeyError as error:
            raise ValueError(f"{path}, line {number} has no field {error.args[0]!r}") from None
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None


class Fields(Formatter):
    """Fills a prompt with the fields of a line. Raises KeyError: it has no such field; ValueError: it is neither a text
    nor a number."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        """The value of a field, and its name."""
        try:
            value, _ = super().get_field(field_name, args, kwargs)
        except (KeyError, IndexError, TypeError, AttributeError):
            raise KeyError(field_name) from None
        if not is_plain(value):
            raise ValueError(f"{field_name} is {shortened(value)}; a prompt takes texts and numbers")
        return value, field_name


def is_plain(value: Any) -> bool:
    """Whether a value of a line is a text or a number, which NaN is not."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str | int) and not isinstance(value, bool)


def choices_of(value: Any, name: str) -> list[str]:
    """The choices in a field of a user's own data. Raises ValueError: they are not a list of two or more, or one has
    no text."""
    if not isinstance(value, list) or not all(map(is_plain, value)):
        raise ValueError(f'{name} must be a list of texts, such as ["yes", "no"], and is {shortened(value)}')
    if len(value) < 2:
        raise ValueError(f"{name} holds {len(value)} choices; a question needs at least 2")
    texts = [well_formed(str(choice)) for choice in value]
    if not all(map(str.strip, texts)):
        raise ValueError(f"{name} holds an empty text, which no model can score")
    return texts


def right_of(right: Any, name: str, choices: Sequence[str | int | float]) -> int:
    """The number of the right choice, which a field of a user's own data gives as that or as its text. Raises
    ValueError: it does not say which one that is, or another choice has the same text."""
    texts = [str(choice) for choice in choices]
    if isinstance(right, str):
        if right not in texts:
            message = f"{name} is {shortened(right)}, which is none of the choices; write one, or its number from 0"
            raise ValueError(message)
        right = texts.index(right)
    elif isinstance(right, bool) or not isinstance(right, int):
        raise ValueError(f"{name} is {shortened(right)}; it is the number of the right choice, from 0, or its text")
    elif not all(isinstance(choice, str) for choice in choices):
        raise ValueError(f"{name} is {right} and choices are numbers, so it may mean one or its place; write texts")
    elif not 0 <= right < len(texts):
        raise ValueError(f"{name} is {right}; of {len(texts)} choices it is the number of one, from 0")
    if texts.count(texts[right]) > 1:
        raise ValueError(f"{shortened(texts[right])} is the right choice and stands twice, so that none could win")
    return right


def shortened(value: Any) -> str:
    """A value as JSON, the beginning of it where it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 60 else f"{text[:57]}..."
