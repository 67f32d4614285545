"""Many texts through a model with every prefix that several of them share computed once.

The texts are arranged as a radix tree. A node is computed after the one above it, and its sequence in the step's batch
has the pages of all nodes above it; where a node begins within a page, it gets a copy of that page. Nodes are taken in
depth-first order, as many as a step may hold, so that few pages are in use at a time.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bluejay.infer.backends import Backend, StepBatch, checked
from bluejay.infer.cache import pages_of
from bluejay.infer.scoring import PAGE, TOKENS_PER_STEP, Window, windows
from bluejay.prefixes import common_prefix

NODES_AT_ONCE = TOKENS_PER_STEP // 2
"""Nodes of one step for which the cache has pages, in addition to the pages that the longest text needs."""


@dataclass(eq=False)
class Node:
    """Tokens that follow the same prefix in one text or in several."""

    text: int
    """A text that runs through this node."""
    start: int
    """The position of its first token."""
    stop: int
    above: "Node | None"
    below: list["Node"] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    """The texts whose last token is the last of this node."""
    wanted: list[tuple[int, int, int]] = field(default_factory=list)
    """(text, position, end): the positions in this node whose successors in a text are to be predicted."""
    pages: list[int] = field(default_factory=list)
    """The pages of the text up to `stop`, while they are needed."""
    unfinished: int = 0
    """Nodes below it that are not finished, or whose nodes below are not."""

    def n_pages(self, size: int) -> int:
        """Number of pages that it needs besides those of the node above."""
        return pages_of(self.stop, size) - self.start // size


class Trie:
    """Texts as a radix tree."""

    def __init__(self, texts: Sequence[Window]) -> None:
        self.texts = texts
        self.top: list[Node] = []
        path: list[Node] = []
        previous: Sequence[int] = ()
        for number in sorted(range(len(texts)), key=lambda number: list(texts[number].tokens[:-1])):
            tokens = texts[number].tokens[:-1]
            shared = common_prefix(previous, tokens)
            while path and path[-1].start >= shared:
                path.pop()
            if path and path[-1].stop > shared:
                path[-1] = self._split(path[-1], shared)
            at = shared
            while at < len(tokens):  # a step holds no more of one text than of several
                stop = min(len(tokens), at + TOKENS_PER_STEP)
                path.append(self._add(Node(number, at, stop, path[-1] if path else None)))
                at = stop
            path[-1].ends.append(number)
            previous = tokens
        for node in self.nodes():
            for number in node.ends:
                self._want(node, number)

    def _add(self, node: Node) -> Node:
        (self.top if node.above is None else node.above.below).append(node)
        return node

    def _split(self, node: Node, at: int) -> Node:
        """Divide a node at a position; returns its first part."""
        first = Node(node.text, node.start, at, node.above, [node])
        siblings = self.top if node.above is None else node.above.below
        siblings[siblings.index(node, -1)] = first
        node.start, node.above = at, first
        return first

    def _want(self, end: Node, number: int) -> None:
        """Note in the nodes of a text what is to be predicted of it."""
        node: Node | None = end
        while node is not None and node.stop > self.texts[number].first:
            node.wanted.append((number, max(node.start, self.texts[number].first), node.stop))
            node = node.above

    def nodes(self) -> Iterator[Node]:
        """All nodes, each before those below it."""
        stack = self.top[::-1]
        while stack:
            node = stack.pop()
            yield node
            stack += node.below[::-1]

    @property
    def n_tokens(self) -> int:
        """Number of tokens that are computed."""
        return sum(node.stop - node.start for node in self.nodes())

    def reserve(self, size: int) -> int:
        """The most pages of `size` tokens that the nodes of one text hold together."""
        most, held = 0, dict[Node, int]()
        for node in self.nodes():
            held[node] = node.n_pages(size) + (0 if node.above is None else held[node.above])
            most = max(most, held[node])
        return most

    def lengths(self) -> list[int]:
        """Lengths of sequences, in tokens, for which a cache must have room: the first for `scores` to be possible, the
        others for steps to be full."""
        n_nodes = sum(1 for _ in self.nodes())
        return [PAGE * self.reserve(PAGE // 2), *[PAGE] * min(NODES_AT_ONCE, n_nodes)]

    def scores(self, backend: Backend) -> Iterator[tuple[int, Float[Tensor, "W 2"]]]:
        """Yields (number, rows) for each text as soon as it is computed: of every token to predict the log-probability,
        and by how much its logit falls short of the largest. Raises LogitsError if logits are not numbers."""
        size, reserve = backend.page_size, self.reserve(backend.page_size)
        assert backend.n_pages >= reserve
        free = list(range(backend.n_pages))[::-1]
        found: dict[int, list[Tensor]] = {}
        ready = self.top[::-1]
        while ready:
            step: list[Node] = []
            n_tokens = 0
            # The first node of a step always finds pages for a whole text; others join while more than these are free.
            while ready and n_tokens < TOKENS_PER_STEP:
                if len(free) < ready[-1].n_pages(size) + (reserve if step else 0):
                    break
                node = ready.pop()
                step.append(node)
                n_tokens += node.stop - node.start
                self._take_pages(node, free, backend)
            for node, rows in zip(step, self._compute(step, backend), strict=True):
                for number, part in rows:
                    found.setdefault(number, []).append(part)
                for number in node.ends:
                    yield number, torch.cat(found.pop(number))
            for node in reversed(step):
                ready += node.below[::-1]
                node.unfinished = len(node.below)
                self._release(node, free, size)

    def _take_pages(self, node: Node, free: list[int], backend: Backend) -> None:
        """Give a node its pages: those of the node above, and new ones from where it begins."""
        size = backend.page_size
        above = [] if node.above is None else node.above.pages
        n_shared = node.start // size
        node.pages = above[:n_shared] + [free.pop() for _ in range(node.n_pages(size))]
        if node.start % size:
            backend.copy_page(above[n_shared], node.pages[n_shared])

    def _release(self, node: Node, free: list[int], size: int) -> None:
        """Return the pages of a node that nothing below needs any more, and those of the nodes above likewise."""
        at: Node | None = node
        while at is not None and at.unfinished == 0:
            free += at.pages[at.start // size :]
            at.pages = []
            at = at.above
            if at is not None:
                at.unfinished -= 1

    def _compute(self, step: list[Node], backend: Backend) -> Iterator[list[tuple[int, Tensor]]]:
        """For each node of a step the predictions in it, (text, rows)."""
        starts = np.cumsum([0, *(node.stop - node.start for node in step)])
        tokens: list[int] = []
        found, wanted, targets = [self._distinct(node) for node in step], [], []
        for node, at, distinct in zip(step, starts.tolist(), found, strict=False):
            tokens += self.texts[node.text].tokens[node.start : node.stop]
            wanted.append(distinct.positions + (at - node.start))
            targets.append(distinct.targets)
        lengths, pages = [node.start for node in step], [node.pages for node in step]
        batch = StepBatch.of(tokens, starts, lengths, pages, np.concatenate(wanted))
        scores = checked(backend, backend.score(batch, np.concatenate(targets).astype(np.int32))).cpu()
        for node, distinct, rows in zip(step, found, scores.split([len(one.targets) for one in found]), strict=True):
            if distinct.rows is not None:
                rows = rows[distinct.rows]
            parts = rows.split([stop - start for _, start, stop in node.wanted])
            yield [(number, part) for (number, *_), part in zip(node.wanted, parts, strict=True)]

    def _distinct(self, node: Node) -> "Distinct":
        """What is to be predicted in a node: texts that agree on a position and its successor share the prediction."""
        positions = np.concatenate([np.arange(0), *(np.arange(start, stop) for _, start, stop in node.wanted)])
        targets = np.array(
            [id for number, start, stop in node.wanted for id in self.texts[number].tokens[start + 1 : stop + 1]], int
        )
        if len(node.wanted) < 2:
            return Distinct(positions, targets, None)
        pairs, rows = np.unique(np.stack((positions, targets)), axis=1, return_inverse=True)
        return Distinct(pairs[0], pairs[1], torch.from_numpy(rows))


def predictions(
    pairs: Sequence[tuple[list[int], list[int]]],
    n_ctx: int,
    backend_for: Callable[[list[int]], AbstractContextManager[Backend]],
) -> Iterator[tuple[int, Float[Tensor, "W 2"]]]:
    """Yields (number of a pair, rows) as soon as it is computed: the rows of `Trie.scores` for the tokens of its second
    part. `backend_for` opens a backend for sequences of given lengths, as of `Trie.lengths`."""
    all_windows = [window for i, (a, b) in enumerate(pairs) for window in windows(i, a + b, len(a), n_ctx)]
    left = Counter(window.text for window in all_windows)
    parts: dict[int, dict[int, Tensor]] = {}
    trie = Trie(all_windows)
    with backend_for(trie.lengths()) as backend:
        for at, rows in trie.scores(backend):
            number = all_windows[at].text
            parts.setdefault(number, {})[at] = rows
            if len(parts[number]) == left[number]:
                found = parts.pop(number)
                yield number, torch.cat([found[i] for i in sorted(found)])


class Distinct(NamedTuple):
    """The predictions in a node, each once, in the order of their positions."""

    positions: Int[np.ndarray, " R"]
    targets: Int[np.ndarray, " R"]
    """The token whose probability is wanted after each."""
    rows: Int[Tensor, " W"] | None
    """For each prediction of each text of the node its number among these; None where they are the same."""
