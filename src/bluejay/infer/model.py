"""A model with its tokenizer, ready to generate, to score and to embed text."""

import weakref
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from typing import Any, NoReturn, overload

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from bluejay.chat_template import NO_VARIABLES, prompt_tokens
from bluejay.gpt.formats.companions import card_of
from bluejay.gpt.formats.layouts import open_model
from bluejay.gpt.formats.locate import locate, title
from bluejay.gpt.formats.tensors import tokenizer_of
from bluejay.gpt.model import GPT
from bluejay.infer.asynchronous import each_in_thread, go_on, in_thread
from bluejay.infer.backends.native import NativeModel, chosen
from bluejay.infer.exceptions import ChatTemplateError, PromptError
from bluejay.infer.loaded import LoadedWeights
from bluejay.infer.params import SamplingParams, changed
from bluejay.infer.prompts import (
    Messages,
    Pairs,
    Prompt,
    Prompts,
    begun,
    check_bias,
    check_pairs,
    check_prompt,
    check_readable,
    encode_pairs,
    encode_prompts,
    most_tokens,
    read_conversations,
    read_pairs,
    read_prompts,
    with_seeds,
)
from bluejay.infer.samples import Chunk
from bluejay.infer.scoring import LogLikelihood, Score, Window, bar_if, read, score_of, wanted_hidden, wanted_logits
from bluejay.infer.shared_engine import MAX_SEQUENCES, Resident
from bluejay.infer.trie import predictions
from bluejay.infer.weights import device_named, dtype_named, free_bytes, read_weights, token_bytes
from bluejay.tokenizer import Tokenizer


class Model(LoadedWeights):
    """A model with its tokenizer, made by `bluejay.load`. Its engine and their caches live as long as it does, or until
    `close`, which a `with` statement calls; any number of threads may use it at the same time.

    `licence` is the licence that its files state, `path` where they are. With `compiled`, torch compiles its
    steps; raises ValueError if the native engine runs the model.
    """

    def __init__(
        self,
        weights: GPT | NativeModel,
        tokenizer: Tokenizer,
        name: str = "model",
        *,
        licence: str | None = None,
        path: Path | None = None,
        compiled: bool = False,
    ) -> None:
        super().__init__(weights, name, compiled)
        self.tokenizer = tokenizer
        self.licence = licence
        self.path = path
        self._resident = self._new_resident()

    def __repr__(self) -> str:
        size = f"{self.config.n_parameters:,} parameters"
        engine = "closed" if self.closed else f"native {chosen()}" if self.is_native else "torch"
        return f"<bluejay.Model {self.name}: {self.config.family}, {size}, context {self.config.n_ctx:,}, {engine}>"

    @property
    def card(self) -> str:
        """The README.md in its directory; empty where there is none."""
        return card_of(self.path) if self.path else ""

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the weights and the caches; the model cannot be used afterwards."""
        super().close()
        self._resident = self._new_resident()

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"the model {self.name} cannot be copied or pickled; call bluejay.load in each process instead")

    def _new_resident(self) -> Resident:
        model = weakref.proxy(self)  # a circle would keep its memory until the garbage collector comes
        return Resident(
            lambda lengths: model._new_backend(lengths),
            self.tokenizer,
            lambda lengths: model._fitting(lengths),
            speculate=not self.compiled,
        )

    @overload
    def generate(
        self, prompts: Prompt, sampling_params: SamplingParams | None = None, *, progress: bool = True, **settings: Any
    ) -> list[str]: ...
    @overload
    def generate(
        self, prompts: Prompts, sampling_params: SamplingParams | None = None, *, progress: bool = True, **settings: Any
    ) -> list[list[str]]: ...
    def generate(
        self, prompts: Any, sampling_params: SamplingParams | None = None, *, progress: bool = True, **settings: Any
    ) -> Any:
        """The n completions of a prompt, which is a text or token ids, without the prompt; for a list of prompts, a
        list with the completions of each.

        Keywords are fields of SamplingParams and change those given: `generate(texts, max_tokens=8, temperature=0)`.
        The prompts of a list advance together, and each gets the text that it would get alone; a bar shows the progress
        of a long job unless `progress` is off. Raises PromptError and its kinds, ValueError for a parameter outside its
        range, TypeError for one that does not exist, and CacheError where memory is too short.
        """
        texts, single = read_prompts(prompts)
        return self._complete(encode_prompts(self.tokenizer, texts), single, sampling_params, settings, progress)

    @overload
    def chat(
        self,
        messages: Messages,
        sampling_params: SamplingParams | None = None,
        *,
        chat_template_kwargs: Mapping[str, Any] = NO_VARIABLES,
        progress: bool = True,
        **settings: Any,
    ) -> list[str]: ...
    @overload
    def chat(
        self,
        messages: Sequence[Messages],
        sampling_params: SamplingParams | None = None,
        *,
        chat_template_kwargs: Mapping[str, Any] = NO_VARIABLES,
        progress: bool = True,
        **settings: Any,
    ) -> list[list[str]]: ...
    def chat(
        self,
        messages: Any,
        sampling_params: SamplingParams | None = None,
        *,
        chat_template_kwargs: Mapping[str, Any] = NO_VARIABLES,
        progress: bool = True,
        **settings: Any,
    ) -> Any:
        """The n answers to a conversation, a list of messages with a `role` and a `content`; for a list of
        conversations, a list with the answers to each. `chat_template_kwargs` has variables that the chat template
        reads, as `{"enable_thinking": False}`. Everything else is as in `generate`. Raises ChatTemplateError if the
        model has no chat template, or if it rejects the messages or does not read a variable."""
        conversations, single = read_conversations(messages)
        prompts = [self.chat_prompt(conversation, chat_template_kwargs) for conversation in conversations]
        return self._complete(prompts, single, sampling_params, settings, progress)

    def chat_prompt(self, messages: Messages, chat_template_kwargs: Mapping[str, Any] = NO_VARIABLES) -> list[int]:
        """The token ids that the chat template makes of a conversation, up to where the answer begins; `stream` takes
        them. `chat_template_kwargs` is as in `chat`. Raises ChatTemplateError."""
        try:
            return prompt_tokens(self.tokenizer, messages, chat_template_kwargs)
        except ValueError as error:
            raise ChatTemplateError(str(error)) from None

    def stream(
        self,
        prompts: Prompt | Prompts,
        sampling_params: SamplingParams | None = None,
        *,
        seeds: Sequence[int] | None = None,
        **settings: Any,
    ) -> Iterator[Chunk]:
        """Continue prompts as `generate` does, and yield each token as it is generated. The index of a chunk is the
        number of its sample, in a list of prompts the number of the prompt times n plus that of the sample. `seeds`
        gives each prompt a seed of its own. Raises as `generate`, for prompts and parameters in this call."""
        params = changed(sampling_params, settings)
        texts, single = read_prompts(prompts)
        chunks = self._chunks(encode_prompts(self.tokenizer, texts), single, params, seeds)
        return (
            Chunk(number * params.n + chunk.index, chunk.text, chunk.token, chunk.finish_reason, chunk.logprob)
            for number, chunk in chunks
        )

    @overload
    def score(self, texts: Prompt, *, progress: bool = True) -> Score: ...
    @overload
    def score(self, texts: Prompts, *, progress: bool = True) -> list[Score]: ...
    def score(self, texts: Any, *, progress: bool = True) -> Any:
        """The log-probability of every token of a text that begins a document, given as text or as token ids; for a
        list of texts, a list with the score of each.

        A text longer than the context is read in windows that overlap by half; each token is scored once, in the first
        window that contains it. Raises PromptError for an empty text, TokenError for a token that the model has no row
        for, LogitsError if logits are not numbers.
        """
        given, single = read_prompts(texts)
        encoded = encode_prompts(self.tokenizer, given, begin=False)
        if [] in encoded:
            number = "" if single else f", and text {encoded.index([])} is empty"
            raise PromptError(f"an empty text has no score{number}")
        pairs = [begun(self.tokenizer, [], ids) for ids in encoded]
        table, found = self.tokenizer.token_bytes(), self._target_scores(pairs, single, progress)
        scores = [score_of(text, ids, rows, table) for text, (_, ids), rows in zip(given, pairs, found, strict=True)]
        return scores[0] if single else scores

    def loglikelihood(self, pairs: Pairs, *, progress: bool = True) -> list[LogLikelihood]:
        """The log-probability of each continuation after its context, and whether greedy decoding would write it.

        A pair is two texts, or the token ids of two. Texts are divided into tokens as in lm-evaluation-harness
        (`bluejay.infer.prompts.encode_pairs`). Where a pair is longer than the model's context, the start of its
        context is left out. The results are in the order of the pairs. Raises as `score`.
        """
        found = self._target_scores(encode_pairs(self.tokenizer, read_pairs(pairs)), False, progress)
        return [LogLikelihood(float(one[:, 0].double().sum()), bool((one[:, 1] == 0).all())) for one in found]

    @overload
    def logits(self, prompts: Prompt) -> Float[Tensor, "T V"]: ...
    @overload
    def logits(self, prompts: Prompts) -> list[Float[Tensor, "T V"]]: ...
    def logits(self, prompts: Any) -> Any:
        """The float32 logits after each token of a prompt, which is token ids or a text; for a list, a list of them.

        Raises ContextLengthError for a prompt longer than the context, TokenError and LogitsError.
        """
        windows, single = self._whole(prompts)
        found = read(windows, self._resident.reader, wanted_logits, lambda _: go_on())
        return found[0] if single else found

    @overload
    def embed(self, texts: Prompt, *, progress: bool = True) -> Float[Tensor, " D"]: ...
    @overload
    def embed(self, texts: Prompts, *, progress: bool = True) -> Float[Tensor, "B D"]: ...
    def embed(self, texts: Any, *, progress: bool = True) -> Any:
        """The embedding of a text, or of each text of a list: the mean of the hidden states after the final norm over
        all its tokens, divided by its length, so that the product of two is their cosine. Raises as `logits`."""
        windows, single = self._whole(texts)
        n_tokens = sum(window.n_tokens for window in windows)
        with bar_if(progress and not single, "embedding", n_tokens, "tokens") as advance:
            sums = read(windows, self._resident.reader, wanted_hidden, lambda n: go_on() or advance(n), summed=True)
        found = F.normalize(torch.stack(sums), dim=-1) if sums else torch.empty(0, self.config.d_model)
        return found[0] if single else found

    def lens(self) -> Any:
        """A `bluejay.Lens`: the model in float32 with all its activations to read and to write. Raises ValueError where
        memory is too short for that, with the bytes that it needs."""
        return import_module("bluejay.lens.activations").Lens(self)  # which is built on this module

    agenerate, achat, ascore = in_thread(generate), in_thread(chat), in_thread(score)
    aloglikelihood, alogits, aembed = in_thread(loglikelihood), in_thread(logits), in_thread(embed)
    astream = each_in_thread(stream)

    def _complete(
        self,
        prompts: list[list[int]],
        single: bool,
        params: SamplingParams | None,
        settings: Mapping[str, Any],
        progress: bool,
    ) -> list[str] | list[list[str]]:
        """The completions of one prompt, or of each."""
        params = changed(params, settings)
        found = [[""] * params.n for _ in prompts]
        with bar_if(progress and not single, "generating", params.n * len(prompts), "texts") as advance:
            for number, chunk in self._chunks(prompts, single, params):
                go_on()
                found[number][chunk.index] += chunk.text
                if chunk.finish_reason:
                    advance(1)
        return found[0] if single else found

    def _chunks(
        self, prompts: list[list[int]], single: bool, params: SamplingParams, seeds: Sequence[int] | None = None
    ) -> Iterator[tuple[int, Chunk]]:
        """Each chunk with the number of its prompt. All prompts are checked in this call, before any is read."""
        each = with_seeds(params, len(prompts), seeds)
        vocab_size, n_ctx = min(self.tokenizer.vocab_size, self.config.vocab_size), self.config.n_ctx
        check_bias(params, vocab_size)
        for number, prompt in enumerate(prompts):
            check_prompt(prompt, params, n_ctx, vocab_size, "the prompt" if single else f"prompt {number}")
        lengths = [most_tokens(prompt, params, n_ctx) for prompt in prompts for _ in range(params.n)]
        fitting = self._fitting(sorted(lengths, reverse=True)[:MAX_SEQUENCES])
        return self._resident.engine(fitting).run(prompts, each) if prompts else iter(())

    def _fitting(self, lengths: list[int]) -> list[int]:
        """The first of the lengths of sequences, so many that their cache takes a quarter of the free memory at most;
        one at least. The others wait for their places."""
        limit = free_bytes(self.weights) // 4 // token_bytes(self.config, torch.float32)
        fitting = [length for length, so_far in zip(lengths, accumulate(lengths), strict=True) if so_far <= limit]
        return fitting or lengths[:1]

    def _target_scores(
        self, pairs: list[tuple[list[int], list[int]]], single: bool, progress: bool
    ) -> list[Float[Tensor, "W 2"]]:
        """What `predictions` gives for each pair."""
        check_pairs(pairs, self.config.vocab_size, "the text" if single else "text {}")
        found: list[Tensor] = [torch.empty(0, 2)] * len(pairs)
        with bar_if(progress and not single, "scoring", len(pairs), "texts") as advance, self._resident.turn():
            for number, rows in self.predictions(pairs):
                go_on()
                found[number] = rows
                advance(1)
        return found

    def predictions(self, pairs: Sequence[tuple[list[int], list[int]]]) -> Iterator[tuple[int, Float[Tensor, "W 2"]]]:
        """Yields (number of a pair, rows) as soon as it is computed: for each token of its second part the
        log-probability after all before it, and by how much its logit falls short of the largest. Prefixes that pairs
        share are computed once. Whatever the caller does with the model meanwhile changes nothing, and needs a cache of
        its own. Raises LogitsError, and CacheError where memory is too short."""
        resident, n_ctx = self._resident, self.config.n_ctx
        return resident.in_turn(predictions(pairs, n_ctx, lambda lengths: resident.lent(self._fitting(lengths))))

    def _whole(self, prompts: Any) -> tuple[list[Window], bool]:
        """A window for each prompt, and whether there is a single one."""
        given, single = read_prompts(prompts)
        encoded = encode_prompts(self.tokenizer, given)
        check_readable(encoded, self.config.n_ctx, self.config.vocab_size, "the prompt" if single else "prompt {}")
        return [Window(number, [*ids, 0], 0) for number, ids in enumerate(encoded)], single


def load(
    name: str | Path, device: str | torch.device = "cpu", dtype: str | torch.dtype | None = None, compiled: bool = False
) -> Model:
    """Open a model: a directory in the Hugging Face layout, a checkpoint of mesh-transformer-jax, a GGUF file, or the
    hub's name of a model that `bluejay pull` has downloaded.

    `device` is one of torch's, or "auto" for a GPU if there is one. On a CPU the native engine runs the model if it
    can, otherwise torch does; with `compiled`, torch compiles its steps, which takes a minute at first. Weights keep
    the type in which they are stored unless `dtype` is given, as "bfloat16"; in torch quantised weights become
    bfloat16, and those of several types float32. Raises FileNotFoundError or ValueError, each with one sentence.
    """
    name = Path(name).expanduser() if str(name).startswith("~/") else name
    wanted_device, wanted_dtype, path = device_named(device), dtype_named(dtype), locate(name).resolve()
    stored = open_model(path)
    tokenizer = tokenizer_of(stored, name)
    weights = read_weights(stored, wanted_device, wanted_dtype)
    return Model(weights, tokenizer, title(name, path), licence=stored.licence, path=path, compiled=compiled)
