"""What answers requests: a model on this machine, or one behind an HTTP address in OpenAI's form."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from bluejay.chat_template import prompt_tokens
from bluejay.evals.tasks import Answer, Continuation, Generation, Likelihood, Request, WholeText
from bluejay.infer.model import Model, load
from bluejay.infer.params import SamplingParams
from bluejay.infer.trie import Text, Trie
from bluejay.tokenizer import Tokenizer

PROMPTS_PER_POST = 16
"""Prompts in one HTTP request."""
SECONDS = 600.0
"""The longest that an HTTP request may take."""

Advance = Callable[[int], object]


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
        self.computed = 0
        """Tokens that were computed for likelihoods: those of the tries."""

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        likely = [i for i, request in enumerate(requests) if isinstance(request, Continuation)]
        yield from self._likelihoods(likely, [requests[i] for i in likely])
        for number, request in enumerate(requests):
            if isinstance(request, WholeText):
                score = self.model.score(request.text)
                yield number, Likelihood(sum(score.logprobs), len(score.tokens), False)
        for number, request in enumerate(requests):
            if isinstance(request, Generation):
                yield number, self._generate(request)

    def _likelihoods(self, numbers: list[int], requests: Sequence[Any]) -> Iterator[tuple[int, Answer]]:
        if not requests:
            return
        texts = [self._text(pair) for pair in self._pairs(requests)]
        trie = Trie(texts)
        self.computed += trie.n_tokens
        for at, rows in trie.scores(self.model.backend(len(trie.lengths()), 1)):
            logprobs, shortfalls = rows[:, 0].double(), rows[:, 1]
            yield numbers[at], Likelihood(float(logprobs.sum()), len(rows), bool((shortfalls == 0).all()))

    def _pairs(self, requests: Sequence[Continuation]) -> list[tuple[list[int], list[int]]]:
        tokenizer = self.model.tokenizer
        if not self.chat:
            return encode_pairs(tokenizer, [(request.context, request.text) for request in requests])
        prompts = {request.context: self._chat_prompt(request.context) for request in requests}
        return [(prompts[request.context], tokenizer.encode(request.text.lstrip())) for request in requests]

    def _chat_prompt(self, context: str) -> list[int]:
        return prompt_tokens(self.model.tokenizer, [{"role": "user", "content": context}])

    def _text(self, pair: tuple[list[int], list[int]]) -> Text:
        """A context with its continuation; what is longer than the model reads loses the start of its context."""
        tokens = (pair[0] + pair[1])[-(self.model.config.n_ctx + 1) :]
        if len(pair[1]) >= len(tokens):
            raise ValueError(f"a choice has {len(pair[1])} tokens, and {self.name} reads {self.n_ctx} at once")
        return Text(tokens, len(tokens) - len(pair[1]) - 1)

    def longest(self, requests: Sequence[Request]) -> int:
        pairs = self._pairs([request for request in requests if isinstance(request, Continuation)])
        prompts = [request for request in requests if isinstance(request, Generation)]
        encoded = self.model.tokenizer.encode_batch([request.prompt for request in prompts])
        generated = [len(ids) + request.max_tokens for ids, request in zip(encoded, prompts, strict=True)]
        return max([*generated, *(len(a) + len(b) - 1 for a, b in pairs)], default=0)

    def _generate(self, request: Generation) -> str:
        params = SamplingParams(max_tokens=request.max_tokens, temperature=0.0, stop=request.stop)
        (text,) = self.model.generate(request.prompt, params)
        return text


def encode_pairs(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
    """The token ids of contexts and continuations, as lm-evaluation-harness divides them (`TemplateLM._encode_pair`):
    both are encoded as one text, and the spaces at the end of the context belong to the continuation."""
    whole = tokenizer.encode_batch([context + text for context, text in pairs])
    before = tokenizer.encode_batch([context.rstrip() for context, _ in pairs])
    begin = tokenizer.begin or [tokenizer.eot]
    found = []
    for ids, context in zip(whole, before, strict=True):
        n = min(len(context), len(ids) - 1)
        found.append(((tokenizer.begin if n else begin) + ids[:n], ids[n:]))
    return found


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
                settings = {"prompt": request.prompt, "stop": list(request.stop), "max_tokens": request.max_tokens}
                (choice,) = self._complete(**settings)
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
