"""What answers requests: a model on this machine, or one behind an HTTP address in OpenAI's form."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

from bluejay.evals.tasks import Answer, Continuation, Generation, Likelihood, Request, WholeText
from bluejay.infer.model import Model, load
from bluejay.infer.params import SamplingParams
from bluejay.infer.prompts import encode_pairs

PROMPTS_PER_POST = 16
"""Prompts in one HTTP request."""
SECONDS = 600.0
"""The longest that an HTTP request may take."""

TOP_P = 0.95
"""Of samples that are not greedy, as in the papers on generated programs."""
Samples = list[tuple[int, Generation]]
"""Requests that differ in their seeds alone, which are consecutive, with their numbers."""


@runtime_checkable
class Scorer(Protocol):
    """Answers requests."""

    name: str
    """For results."""
    identity: str
    """Changes whenever answers may."""
    n_ctx: int | None
    """Tokens that the model reads at once; None if that is not known."""

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """Yields (number of a request, its answer), in any order. Raises ValueError: it cannot be answered."""
        ...

    def longest(self, requests: Sequence[Request]) -> int:
        """Tokens of the longest request; 0 if that is not known."""
        ...


class LocalScorer:
    """A model on this machine. With `chat`, prompts become messages of a user in the model's chat template."""

    def __init__(self, model: Model, name: str, identity: str, chat: bool = False) -> None:
        self.model, self.name, self.identity, self.chat = model, name, identity, chat
        self.n_ctx: int | None = model.config.n_ctx
        self._last: dict[Request, tuple[list[int], list[int]]] = {}
        """The token ids of the requests asked about last: first how long they are, then what their answers are."""

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        likely = [i for i, request in enumerate(requests) if not isinstance(request, Generation)]
        pairs = self._pairs([requests[i] for i in likely])
        for at, rows in self.model.predictions(pairs):
            greedy = bool((rows[:, 1] == 0).all())
            yield likely[at], Likelihood(float(rows[:, 0].double().sum()), len(rows), greedy)
        generations = [(i, request) for i, request in enumerate(requests) if isinstance(request, Generation)]
        for batch in batches_of(generations):
            yield from self._generate(batch)

    def _pairs(self, requests: Sequence[Request]) -> list[tuple[list[int], list[int]]]:
        """The token ids of what stands before, and of what is to be scored."""
        if not all(request in self._last for request in requests):
            distinct = list(dict.fromkeys(requests))
            self._last = dict(zip(distinct, self._encoded(distinct), strict=True))
        return [self._last[request] for request in requests]

    def _encoded(self, requests: Sequence[Request]) -> list[tuple[list[int], list[int]]]:
        tokenizer = self.model.tokenizer
        texts = [
            (request.context, request.text) if isinstance(request, Continuation) else ("", request.text)
            for request in requests
            if not isinstance(request, Generation)
        ]
        if not self.chat:
            return encode_pairs(tokenizer, texts)
        prompts = {context: self._prompt(context) for context, _ in texts}
        return [(prompts[context], tokenizer.encode(text.lstrip())) for context, text in texts]

    def _prompt(self, text: str) -> list[int]:
        """The token ids of a prompt."""
        if self.chat:
            return self.model.chat_prompt([{"role": "user", "content": text}])
        return self.model.tokenizer.encode_prompt(text)

    def longest(self, requests: Sequence[Request]) -> int:
        pairs = self._pairs([request for request in requests if isinstance(request, Continuation)])
        generated = [
            len(self._prompt(request.prompt)) + request.max_tokens
            for request in requests
            if isinstance(request, Generation)
        ]
        return max([*generated, *(len(a) + len(b) - 1 for a, b in pairs)], default=0)

    def _generate(self, batch: list[Samples]) -> Iterator[tuple[int, Answer]]:
        """Answers to requests that advance together; a prompt that is too long loses its start."""
        (_, first), *_ = batch[0]
        room = self.model.config.n_ctx - first.max_tokens
        if room < 1:
            raise ValueError(f"an answer of {first.max_tokens} tokens leaves {self.name} no room for a question")
        prompts = [self._prompt(request.prompt)[-room:] for (_, request), *_ in batch]
        params = SamplingParams(
            max_tokens=first.max_tokens,
            temperature=first.temperature,
            top_p=TOP_P,
            stop=first.stop,
            seed=first.seed,
            n=len(batch[0]),
        )
        numbers = [number for samples in batch for number, _ in samples]
        texts = [""] * len(numbers)
        for chunk in self.model.stream(prompts, params):
            texts[chunk.index] += chunk.text
            if chunk.finish_reason:
                yield numbers[chunk.index], texts[chunk.index]


def batches_of(requests: Sequence[tuple[int, Generation]]) -> list[list[Samples]]:
    """Requests that can advance together: with the same settings, and for each prompt the same consecutive seeds, since
    the engine draws sample i with seed + i."""
    by_prompt: dict[Generation, list[tuple[int, Generation]]] = {}
    for number, request in requests:
        by_prompt.setdefault(replace(request, seed=0), []).append((number, request))
    found: dict[Any, list[Samples]] = {}
    for samples in by_prompt.values():
        samples.sort(key=lambda sample: sample[1].seed)
        runs = groupby(enumerate(samples), key=lambda pair: pair[1][1].seed - pair[0])
        for run in ([sample for _, sample in group] for _, group in runs):
            first = run[0][1]
            key = (first.stop, first.max_tokens, first.temperature, first.seed, len(run))
            found.setdefault(key, []).append(run)
    return list(found.values())


class HttpScorer:
    """A model behind an address in the form of OpenAI's completions, with log-probabilities of the prompt."""

    def __init__(self, address: str) -> None:
        import httpx2

        self.address = address.rstrip("/").removesuffix("/v1")
        self.client = httpx2.Client(timeout=SECONDS)
        self.n_ctx: int | None = None
        try:
            (model, *_) = self._json("GET", "models")["data"]
        except (KeyError, ValueError, TypeError, httpx2.HTTPError) as error:
            raise ValueError(f"{self.address} does not answer as a server of completions: {error}") from None
        self.name = str(model["id"])
        self.identity = f"{self.address} {self.name}"

    def _json(self, method: str, path: str, **more: Any) -> Any:
        answer = self.client.request(method, f"{self.address}/v1/{path}", **more)
        if not answer.is_success:
            raise ValueError(f"{self.address} answers {answer.status_code}: {answer.text[:200]}")
        return answer.json()

    def longest(self, requests: Sequence[Request]) -> int:
        return 0

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        numbers = [i for i, request in enumerate(requests) if isinstance(request, Continuation)]
        for at in range(0, len(numbers), PROMPTS_PER_POST):
            yield from self._likelihoods(numbers[at : at + PROMPTS_PER_POST], requests)
        for number, request in enumerate(requests):
            if isinstance(request, WholeText):
                raise ValueError(f"whole texts are scored by models on this machine, not by {self.address}")
            if isinstance(request, Generation):
                (choice,) = self._complete(
                    prompt=request.prompt,
                    stop=list(request.stop),
                    max_tokens=request.max_tokens,
                    temperature=request.temperature,
                    top_p=TOP_P,
                    seed=request.seed,
                )
                yield number, choice["text"]

    def _complete(self, **settings: Any) -> list[Any]:
        body = {"model": self.name, "temperature": 0, **settings}
        found = self._json("POST", "completions", json=body)["choices"]
        return sorted(found, key=lambda choice: choice["index"])

    def _likelihoods(self, numbers: list[int], requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        asked = [request for number in numbers if isinstance(request := requests[number], Continuation)]
        prompts = [request.context + request.text for request in asked]
        choices = self._complete(prompt=prompts, echo=True, logprobs=1, max_tokens=1)
        for number, request, prompt, choice in zip(numbers, asked, prompts, choices, strict=True):
            found = choice["logprobs"]
            n_context, n_all = len(request.context.rstrip()), len(prompt)
            ends = [*found["text_offset"][1:], n_all + 1]
            at = [i for i, end in enumerate(ends) if end > n_context and found["text_offset"][i] < n_all]
            if not request.context:
                at = at[1:]  # nothing stands before the first token
            logprobs = [found["token_logprobs"][i] for i in at]
            best = [max(found["top_logprobs"][i].values()) for i in at]
            greedy = all(one >= other for one, other in zip(logprobs, best, strict=True))
            yield number, Likelihood(sum(logprobs), len(at), greedy)


def identity_of(path: Path) -> str:
    """A hash of the names, sizes and times of a model's files, which change when it does."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return hashlib.sha256(json.dumps([str(path), stats]).encode()).hexdigest()[:16]


def open_scorer(name: str, device: str = "auto", chat: bool = False) -> Scorer:
    """The scorer of a model's name, directory, file or HTTP address. Raises FileNotFoundError and ValueError."""
    if urlsplit(name).scheme in ("http", "https"):
        if chat:
            raise ValueError("--chat takes a model on this machine, whose template it can apply")
        return HttpScorer(name)
    from bluejay.gpt.formats.locate import locate

    model = load(name, device)
    if chat and model.tokenizer.chat_template is None:
        raise ValueError(f"{name} has no chat template; leave out --chat")
    return LocalScorer(model, model.name, identity_of(locate(name)) + (" chat" if chat else ""), chat)
