"""EleutherAI's lm-evaluation-harness with Bluejay's engine.

The harness loads no plug-ins, so this module is its command line with the model `bluejay` registered:

    python -m bluejay.evals.harness run --model bluejay --model_args path=MODEL --tasks arc_easy

takes all arguments of `lm_eval`. Code that calls `lm_eval.simple_evaluate` imports this module, which registers the
model, or passes it a `BluejayLM`. Nothing is fetched with HF_HUB_OFFLINE=1 and tasks that name local data.
"""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from bluejay.extras import install

try:
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ImportError:
    if __name__ != "__main__":
        raise
    print(f"error: lm-evaluation-harness is not installed: {install('harness')}", file=sys.stderr)
    sys.exit(2)
import torch
from tokenizers import Tokenizer

from bluejay.chat_template import Chat
from bluejay.evals.tasks import seed_of
from bluejay.infer.model import Model, load
from bluejay.infer.params import SamplingParams
from bluejay.progress import progress
from bluejay.tokenizer import well_formed

MAX_GENERATED = 256
"""Tokens of an answer where a task does not say; the harness's own default."""
DTYPES = {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
KNOWN = "path, device, dtype, max_length, max_gen_toks"
"""What `--model_args` may hold."""


@register_model("bluejay")
class BluejayLM(TemplateLM):
    """A model as the harness asks it; `path` is anything that `bluejay.load` opens, or a Model, and `dtype` the type of
    its weights, such as float32, or "auto" for that in which they are stored. An answer has at most `max_gen_toks`
    tokens where a task does not say. The size of batches is the engine's own, whatever the harness asks for.

    Raises ValueError: an argument is unknown.
    """

    def __init__(
        self,
        path: str | Model,
        device: str = "auto",
        dtype: str = "auto",
        max_length: int | None = None,
        max_gen_toks: int = MAX_GENERATED,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        for name in unknown:
            raise ValueError(f"the model argument {name} is unknown; known are {KNOWN}")
        if dtype not in DTYPES:
            raise ValueError(f"dtype is {dtype}; it must be one of {', '.join(DTYPES)}")
        if isinstance(path, Model) and dtype != "auto":
            raise ValueError(f"dtype is {dtype}, and the model is loaded already; load it with that type")
        self.model = path if isinstance(path, Model) else load(path, device, DTYPES[dtype])
        self.max_gen_toks = max_gen_toks
        self.max_length = min(max_length or self.model.config.n_ctx, self.model.config.n_ctx)
        self.marked = Tokenizer.from_str(self.model.tokenizer.backend.to_str())
        self.marked.encode_special_tokens = False  # the names of special tokens are those tokens, as for the hf adapter

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self.model.tokenizer.eot

    @property
    def prefix_token_id(self) -> int:
        """The token before a text without context: as for the hf adapter the beginning that the tokenizer names, which
        need not be one that it puts before texts."""
        tokenizer = self.model.tokenizer
        named = tokenizer.backend.token_to_id(str(tokenizer.settings.get("bos_token")))
        return (tokenizer.begin or [self.eot_token_id if named is None else named])[0]

    @property
    def tokenizer_name(self) -> str:
        """For the harness's cache of requests."""
        return self.model.tokenizer.sha256[:16]

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The ids of a text, in which names of special tokens are these tokens, as a chat template writes them. What
        begins a text stands before it, unless it is there already or `add_special_tokens` is off."""
        begin = [] if add_special_tokens is False else self.model.tokenizer.begin
        ids = self.marked.encode(well_formed(string), add_special_tokens=False).ids
        return ids if ids[: len(begin)] == begin else begin + ids

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as text, up to where an answer begins; without `add_generation_prompt` up to the end of the
        last message, which the model continues. Raises ValueError: the model has no chat template, or it refuses the
        messages."""
        chat = Chat(self.model.tokenizer)
        text = chat.text(chat_history, add_generation_prompt)
        if not add_generation_prompt:
            last = chat.mask(chat_history[-1]["content"].strip())
            text = text[: text.rindex(last) + len(last)]
        return chat.unmask(text)

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]],
        disable_tqdm: bool = False,
        **_: Any,
    ) -> list[tuple[float, bool]]:
        """The log-likelihood of each continuation, and whether greedy decoding gives it."""
        pairs = [self._cut(context, continuation) for _, context, continuation in requests]
        found: list[tuple[float, bool]] = [(0.0, True)] * len(pairs)
        with progress("scoring", len(pairs), "requests") as bar:
            for number, rows in self.model.predictions(pairs):
                found[number] = float(rows[:, 0].double().sum()), bool((rows[:, 1] == 0).all())
                text = requests[number][0]
                if text is not None:
                    self.cache_hook.add_partial("loglikelihood", text, found[number])
                bar.advance(1)
        return found

    def _cut(self, context: list[int], continuation: list[int]) -> tuple[list[int], list[int]]:
        """A pair without the start of its context, where it is longer than the model reads. The last token of the
        context stays, after which a longer continuation is read in windows."""
        over = len(context) + len(continuation) - (self.max_length + 1)
        return context[min(max(0, over), len(context) - 1) :], continuation

    def loglikelihood_rolling(self, requests: Iterable[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of whole texts, in the harness's windows, which do not overlap."""
        windows, owner = [], []
        texts = [request.args[0] for request in requests]
        for number, text in enumerate(texts):
            tokens = self.tok_encode(text)
            rolled = get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length, context_len=1)
            for context, continuation in map(make_disjoint_window, rolled):
                windows.append((None, context, continuation))
                owner.append(number)
        totals = [0.0] * len(texts)
        for number, (logprob, _) in zip(owner, self._loglikelihood_tokens(windows), strict=True):
            totals[number] += logprob
        for text, total in zip(texts, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), total)
        return totals

    def generate_until(self, requests: Iterable[Any], disable_tqdm: bool = False) -> list[str]:
        """The continuation of each prompt up to a stop sequence; requests with the same settings advance together."""
        asked = [request.args for request in requests]
        groups: dict[str, list[int]] = {}
        for number, (_, settings) in enumerate(asked):
            groups.setdefault(repr(settings), []).append(number)
        found = [""] * len(asked)
        with progress("generating", len(asked), "requests") as bar:
            for numbers in groups.values():
                settings = normalize_gen_kwargs(dict(asked[numbers[0]][1]), self.max_gen_toks)
                params = self._params(settings)
                room = self.max_length - params.max_tokens
                if room < 1:
                    raise ValueError(f"an answer of {params.max_tokens} tokens leaves no room in {self.max_length}")
                prompts = [self.tok_encode(asked[number][0])[-room:] for number in numbers]
                seeds = None if params.seed is None else [seed_of(asked[i][0]) + params.seed for i in numbers]
                for chunk in self.model.stream(prompts, params, seeds=seeds):
                    found[numbers[chunk.index]] += chunk.text
                    bar.advance(chunk.finish_reason is not None)
        for (prompt, settings), text in zip(asked, found, strict=True):
            self.cache_hook.add_partial("generate_until", (prompt, settings), text)
        return found

    def _params(self, settings: dict[str, Any]) -> SamplingParams:
        """The harness's settings of generation as ours. Raises ValueError: one is unknown."""
        until = handle_stop_sequences(settings.pop("until", None), eos=None)
        max_tokens, sampled = settings.pop("max_gen_toks"), settings.pop("do_sample", False)
        temperature = settings.pop("temperature", 1.0 if sampled else 0.0)
        known: dict[str, Any] = {"top_p": 1.0}
        known |= {name: settings.pop(name) for name in ("top_p", "top_k", "seed") if name in settings}
        if settings:
            raise ValueError(f"the generation setting {next(iter(settings))} is unknown; known are until, top_p, top_k")
        stop = tuple(text for text in until if text)
        return SamplingParams(max_tokens=max_tokens, temperature=temperature, stop=stop, **known)


def main() -> None:
    """Run the harness's own command line."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    # Under its own name the module registers its model a single time.
    from bluejay.evals import harness

    sys.argv[0] = "lm_eval"
    harness.main()
