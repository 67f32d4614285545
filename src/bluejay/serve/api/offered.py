"""The models that a server may load, what each needs, and whether they fit."""

import asyncio
import gc
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bluejay.gpt.config import GPTConfig
from bluejay.gpt.formats.companions import card_of, purpose_of
from bluejay.gpt.formats.layouts import open_model
from bluejay.gpt.formats.locate import locate, title
from bluejay.gpt.formats.tensors import tokenizer_of
from bluejay.gpt.info import size
from bluejay.infer.model import Model, load
from bluejay.infer.needs import MODEL, Needs, needs_of
from bluejay.infer.weights import CACHE_SHARE, SHORT_SHARE, device_named
from bluejay.machine import free_memory, resident_memory, return_memory
from bluejay.serve.api.respond import Service
from bluejay.serve.settings import ServeSettings
from bluejay.tokenizer import Tokenizer


@dataclass(eq=False)
class Offered:
    """A model that requests may name, and its service while it is loaded."""

    name: str
    config: GPTConfig
    load: Callable[[], Model]
    vocab_size: int
    path: Path | None = None
    licence: str | None = None
    card: str = ""
    """The README.md beside its weights."""
    good_for: str = ""
    """What it is good for, in a sentence."""
    memory: Needs | None = None
    """The memory that it needs; None where memory is not counted."""
    service: Service | None = None
    """None while it is not loaded."""
    held: set[str] = field(default_factory=set)
    """The parts for which memory is set aside."""
    loading: asyncio.Task[None] | None = None
    """What makes room for it and loads it."""
    leaving: bool = False
    """Whether it is being let go, and its memory is not free yet."""
    users: int = 0
    """Requests that it answers, or that wait for it."""
    waiting: int = 0
    """Those of them that wait for the room of other models, while this one may be let go."""
    last_used: float = 0.0
    """The monotonic time at which a request last began or ended."""

    @property
    def needs(self) -> Mapping[str, int]:
        """Part of it (`bluejay.infer.needs`) -> bytes of memory; empty where memory is not counted."""
        return {} if self.memory is None else self.memory.of

    @property
    def n_bytes(self) -> int:
        """Memory that is set aside for it."""
        return sum(self.needs.get(part, 0) for part in self.held)

    def lacking(self, part: str) -> set[str]:
        """The parts for which no memory is set aside, of those that a request for `part` uses."""
        return {MODEL, part} - self.held

    def ready(self, part: str) -> bool:
        """Whether a request for `part` can be answered."""
        busy = self.leaving or self.loading is not None
        return self.service is not None and not busy and not self.lacking(part)


def offer(names: Sequence[str], settings: ServeSettings, device: str, compiled: bool) -> list[Offered]:
    """Open models without reading their weights. Raises FileNotFoundError or ValueError, each with one sentence: no
    such model or device, and two models of one name."""
    offered: dict[str, Offered] = {}
    where = device_named(device)
    for name in names:
        path = locate(name).resolve()
        stored = open_model(path)
        tokenizer, n_ctx = tokenizer_of(stored, name), settings.context(stored.config.n_ctx)
        one = Offered(
            title(name, path),
            stored.config,
            lambda name=name: load(name, device, compiled=compiled),
            tokenizer.vocab_size,
            path,
            stored.licence,
            card_of(path),
            purpose(card_of(path), tokenizer),
            needs_of(stored, path, tokenizer.vocab_size, where, settings.max_sequences, n_ctx),
        )
        if one.name in offered:
            raise ValueError(
                f"{offered[one.name].path} and {path} are both called {one.name}; requests choose a model by its name, "
                "so rename one of the folders"
            )
        offered[one.name] = one
    return list(offered.values())


def purpose(card: str, tokenizer: Tokenizer) -> str:
    """What a model is good for: what its card says, else what its tokenizer shows."""
    plain = "Answers conversations." if tokenizer.chat_template else "Continues texts."
    return purpose_of(card) or plain


def room_for_models(offered: Collection[Offered], settings: ServeSettings, device: str) -> int:
    """The memory that models may take in this process, in bytes: what the settings give the server, less what the
    process takes without any. A model that does not fit into it alone has a smaller cache from now on. Raises
    ValueError where one does not fit even so."""
    where = device_named(device)
    on_gpu = where.type == "cuda"
    collect()
    base = 0 if on_gpu else resident_memory()
    memory = settings.memory_of(torch.cuda.mem_get_info(where)[0] if on_gpu else free_memory() + base)
    for one in offered:
        assert one.memory is not None
        fitting = one.memory.within(memory - base, CACHE_SHARE if on_gpu else SHORT_SHARE)
        if fitting is None:
            own = f", of which the process itself takes {size(base)}" if base else ""
            given = f"each of {settings.workers} processes has" if settings.workers > 1 else "the server has"
            needed = f"{size(one.memory.weights + one.memory.work)} and room for a cache"
            raise ValueError(
                f"{given} {size(memory)} of memory{own}; {one.name} alone needs {needed}: give more by --memory"
            )
        one.memory = fitting
    return memory - base


def collect() -> None:
    """Free what is left of models that were let go."""
    gc.collect()
    return_memory()
