"""What answers requests: a model on this machine, or one behind an HTTP address in OpenAI's form."""

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urldefrag, urlsplit

import numpy as np

from bluejay.download import TRANSIENT_STATUSES
from bluejay.evals.code import cut
from bluejay.evals.evaluation_file import identity_of
from bluejay.evals.tasks import Answer, Continuation, Generation, Likelihood, Request, TokenContinuation, WholeText
from bluejay.files import parse_json
from bluejay.infer.model import Model, load
from bluejay.infer.params import SamplingParams
from bluejay.infer.prompts import encode_pairs

MOST_STOPS = 4
"""Texts that may end an answer in one HTTP request, by OpenAI's description; answers are cut here by all of them."""
PROMPTS_PER_POST = 16
"""Prompts in one HTTP request."""
AT_ONCE = 2000
"""Requests that are answered together, at most, so that memory does not grow with their number. Neighbours share
prompts, so more of them would share little more."""
SECONDS = 600.0
"""The longest that an HTTP request may take."""

PAUSES = (1.0, 2.0, 4.0, 0.0)
"""Seconds after each request that is refused for a reason that may be over a moment later; then the refusal counts."""
KEY = "BLUEJAY_API_KEY"
"""The environment variable with the key of a server that asks for one."""
UNAUTHORIZED = 401

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
    """Changes whenever answers may; empty where that cannot be known, so that answers serve one call alone."""
    n_ctx: int | None
    """Tokens that the model reads at once; None if that is not known."""

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """Yields (number of a request, its answer), in any order. Raises ValueError: it cannot be answered."""
        ...

    def longest(self, requests: Sequence[Request]) -> int:
        """Tokens of the longest request; 0 if that is not known."""
        ...


class LocalScorer:
    """A model on this machine. With `chat`, prompts become messages of a user in the model's chat template; texts that
    follow no prompt are scored without it."""

    def __init__(
        self, model: Model, name: str, identity: str, chat: bool = False, reopen: Callable[[], Model] | None = None
    ) -> None:
        self.model, self.name, self.identity, self.chat, self.reopen = model, name, identity, chat, reopen
        self.n_ctx: int | None = model.config.n_ctx
        self._last: dict[Request, tuple[np.ndarray, np.ndarray]] = {}
        """The token ids of the last requests, which are needed twice: for their lengths, then for their answers."""

    @contextmanager
    def opened(self) -> Generator[None]:
        """Open a model that was closed for as long as the block runs; one that is open stays so."""
        if not self.model.closed or self.reopen is None:
            yield
            return
        with self.reopen() as self.model:
            yield

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        likely = [i for i, request in enumerate(requests) if not isinstance(request, Generation)]
        pairs = [(a.tolist(), b.tolist()) for a, b in self._pairs([requests[i] for i in likely])]
        for at, rows in self.model.predictions(pairs):
            one, greedy, n_bytes = requests[likely[at]], bool((rows[:, 1] == 0).all()), None
            if self.chat and isinstance(one, Continuation) and one.context:
                n_bytes = len(one.text.lstrip().encode())
            yield likely[at], Likelihood(float(rows[:, 0].double().sum()), len(rows), greedy, n_bytes)
        generations = [(i, request) for i, request in enumerate(requests) if isinstance(request, Generation)]
        for batch in batches_of(generations):
            yield from self._generate(batch)

    def _pairs(self, requests: Sequence[Request]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The token ids of what stands before, and of what is to be scored."""
        if not all(request in self._last for request in requests):
            ids = {one: (one.context, one.tokens) for one in requests if isinstance(one, TokenContinuation)}
            self._last = {one: (np.array(a, np.int32), np.array(b, np.int32)) for one, (a, b) in ids.items()}
            texts = [request for request in dict.fromkeys(requests) if request not in ids]
            for begin in range(0, len(texts), AT_ONCE):
                some = texts[begin : begin + AT_ONCE]
                for one, (a, b) in zip(some, self._encoded(some), strict=True):
                    self._last[one] = np.array(a, np.int32), np.array(b, np.int32)
        return [self._last[request] for request in requests]

    def _encoded(self, requests: Sequence[Request]) -> list[tuple[list[int], list[int]]]:
        """As `_pairs`, for requests that are texts; with `chat` a context becomes a prompt of the chat template."""
        tokenizer = self.model.tokenizer
        texts = [
            (request.context, request.text) if isinstance(request, Continuation) else ("", request.text)
            for request in requests
            if isinstance(request, Continuation | WholeText)
        ]
        if not self.chat:
            return encode_pairs(tokenizer, texts)
        prompts = {context: self._prompt(context) for context, _ in texts if context}
        alone = iter(encode_pairs(tokenizer, [pair for pair in texts if not pair[0]]))
        return [
            (prompts[context], tokenizer.encode(text.lstrip())) if context else next(alone) for context, text in texts
        ]

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
            n=len(batch[0]),
        )
        numbers = [number for samples in batch for number, _ in samples]
        texts = [""] * len(numbers)
        for chunk in self.model.stream(prompts, params, seeds=[request.drawn_with for (_, request), *_ in batch]):
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
    """A model behind an address in the form of OpenAI's completions, with log-probabilities of the prompt. Of several
    models the address names one after a #: `http://127.0.0.1:8000#NAME`.

    Raises ValueError: nothing answers there in that form, there is no such model, or several and none is named.
    """

    def __init__(self, address: str) -> None:
        import httpx2

        address, wanted = urldefrag(address)
        self.address = address.rstrip("/").removesuffix("/v1")
        key = os.environ.get(KEY)
        self.client = httpx2.Client(timeout=SECONDS, headers={"Authorization": f"Bearer {key}"} if key else None)
        self.n_ctx: int | None = None
        try:
            models = {str(model["id"]): model for model in self._json("GET", "models")["data"]}
        except (KeyError, TypeError):
            raise ValueError(f"{self.address} does not list its models as a server of completions does") from None
        if wanted not in models and (wanted or len(models) != 1):
            listed = (
                f"it serves {', '.join(models)}; name one as in {self.address}#{next(iter(models))}" if models else ""
            )
            missing = f"{self.address} has no model {wanted}" if wanted else f"{self.address} has no single model"
            raise ValueError(f"{missing}; {listed or 'it serves none'}")
        self.name = wanted or next(iter(models))
        made = models[self.name].get("created")  # by servers of Bluejay, when they started
        self.identity = f"{self.address} {self.name} {made}" if made else ""

    def _json(self, method: str, path: str, **more: Any) -> Any:
        """The JSON that the server answers to a request. Raises ValueError: there is no answer, or it is another."""
        import httpx2

        try:
            for pause in PAUSES:
                answer = self.client.request(method, f"{self.address}/v1/{path}", **more)
                if answer.status_code not in TRANSIENT_STATUSES:
                    break
                time.sleep(pause)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ValueError(f"{self.address} does not answer: {error or type(error).__name__}") from None
        if not answer.is_success:
            advice = f"; {KEY} holds the key that is sent" if answer.status_code == UNAUTHORIZED else ""
            raise ValueError(f"{self.address} answers {answer.status_code}: {error_of(answer.text)}{advice}")
        try:
            return answer.json()
        except ValueError:
            raise ValueError(f"{self.address} answers with something other than JSON: {answer.text[:200]}") from None

    def longest(self, requests: Sequence[Request]) -> int:
        return 0

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        numbers = [i for i, request in enumerate(requests) if isinstance(request, Continuation)]
        for at in range(0, len(numbers), PROMPTS_PER_POST):
            yield from self._likelihoods(numbers[at : at + PROMPTS_PER_POST], requests)
        for number, request in enumerate(requests):
            if isinstance(request, WholeText | TokenContinuation):
                raise ValueError(f"{self.address} cannot score whole texts or token ids; a model on this machine can")
            if isinstance(request, Generation):
                (choice,) = self._complete(
                    1,
                    prompt=request.prompt,
                    stop=list(request.stop[:MOST_STOPS]),
                    max_tokens=request.max_tokens,
                    temperature=request.temperature,
                    top_p=TOP_P,
                    seed=request.drawn_with,
                )
                yield number, cut(choice["text"], request.stop)

    def _complete(self, n: int, **settings: Any) -> list[dict[str, Any]]:
        """The `n` choices that the server gives, each of which has a text."""
        found = self._json("POST", "completions", json={"model": self.name, "temperature": 0, **settings})
        try:
            choices = sorted(found["choices"], key=lambda choice: choice["index"])
            if len(choices) == n and all(isinstance(choice["text"], str) for choice in choices):
                return choices
        except (KeyError, TypeError):
            pass
        raise ValueError(f"{self.address} does not answer in the form of OpenAI's completions, with {n} texts")

    def _likelihoods(self, numbers: list[int], requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """The number and the likelihood of some requests, which are continuations, from a single HTTP request. Raises
        ValueError: the server gives no log-probabilities of prompts."""
        asked = [request for number in numbers if isinstance(request := requests[number], Continuation)]
        prompts = [request.context + request.text for request in asked]
        choices = self._complete(len(prompts), prompt=prompts, echo=True, logprobs=1, max_tokens=1)
        for number, request, prompt, choice in zip(numbers, asked, prompts, choices, strict=True):
            try:
                if not choice["text"].startswith(prompt):
                    raise ValueError("the text does not begin with the prompt")
                found = likelihood_of(request, choice["logprobs"])
            except (ValueError, KeyError, TypeError, IndexError, AttributeError):
                raise ValueError(
                    f"{self.address} does not give log-probabilities of the prompt (echo and logprobs of OpenAI's "
                    f"completions), so choices cannot be scored there"
                ) from None
            if not found.n_tokens:
                raise ValueError(
                    f"{self.address} gives a text's first token no log-probability, so {request.text!r} cannot be "
                    f"scored there without a prompt"
                )
            yield number, found


def error_of(body: str) -> str:
    """What the body of a refusal says: the message, where it has OpenAI's form."""
    try:
        error = parse_json(body)["error"]
        message, code = error["message"], error.get("code")
    except (ValueError, KeyError, TypeError, AttributeError):
        return body[:200]
    too_long = code == "context_length_exceeded"
    advice = "; ask for fewer examples with --shots, or evaluate the model here" if too_long else ""
    return f"{str(message)[:500]}{advice}"


def likelihood_of(request: Continuation, found: dict[str, Any]) -> Likelihood:
    """How likely a continuation is by the log-probabilities of its context, itself and one more token. Nothing stands
    before the first token, so a continuation that begins with it is scored without it where it has none. Raises
    ValueError, KeyError, TypeError, IndexError or AttributeError where they have another form."""
    n_context, n_all, n_bytes = len(request.context.rstrip()), len(request.context + request.text), None
    ends = [*found["text_offset"][1:], n_all + 1]
    at = [i for i, end in enumerate(ends) if end > n_context and found["text_offset"][i] < n_all]
    if not n_context and at[:1] == [0] and found["token_logprobs"][0] is None:
        at = at[1:]
        n_bytes = len((request.context + request.text)[ends[0] :].encode())
    logprobs = [found["token_logprobs"][i] for i in at]
    best = [max(found["top_logprobs"][i].values()) for i in at]
    greedy = all(one >= other for one, other in zip(logprobs, best, strict=True))
    return Likelihood(float(sum(logprobs)), len(at), greedy, n_bytes)


def identities(scorers: Iterable[Scorer]) -> dict[str, str]:
    """Model -> its identity, however it was asked; without those behind an address, whose weights are not known."""
    return {one.name: one.identity.partition(" ")[0] for one in scorers if isinstance(one, LocalScorer)}


def open_scorer(name: str, device: str = "auto", chat: bool = False) -> Scorer:
    """The scorer of a model's name, directory, file or HTTP address. Raises FileNotFoundError and ValueError."""
    if urlsplit(name).scheme in ("http", "https"):
        if chat:
            raise ValueError("--chat takes a model on this machine, whose template it can apply")
        return HttpScorer(name)
    model = load(name, device)
    if chat and model.tokenizer.chat_template is None:
        raise ValueError(f"{name} has no chat template; leave out --chat")
    identity = identity_of(name, model.tokenizer) + (" chat 3" if chat else "")
    return LocalScorer(model, model.name, identity, chat, partial(load, name, device))
