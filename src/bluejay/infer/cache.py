"""Allocation of the pages of the key-value cache: sharing by content, reference counts, eviction.

A page records the tokens whose keys and values it holds and the page before it, so that pages form a tree whose paths
are texts (RadixAttention; Zheng et al., section 3). A new sequence follows the tree as far as its tokens match: full
pages are shared, and a page that matches in part is copied. Unused pages keep their content until they are needed; the
least recently used one is evicted first.
"""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from bluejay.prefixes import common_prefix


@dataclass(eq=False)
class Page:
    """One page of the cache."""

    number: int
    parent: "Page | None" = None
    """The page before this one in its text; None for the first."""
    tokens: list[int] = field(default_factory=list)
    """The tokens whose keys and values it holds; until the page is evicted, tokens are only appended."""
    holders: int = 0
    """The number of leases that contain the page."""


@dataclass(eq=False)
class Lease:
    """The pages of one sequence, enough for its greatest possible length."""

    pages: list[Page]
    n_cached: int
    """Number of tokens whose keys and values these pages hold."""
    copy_on_write: tuple[int, int] | None
    """(source, target): the page that the backend must copy before the first step; None if none matches in part."""

    @cached_property
    def numbers(self) -> list[int]:
        """Page numbers, in order."""
        return [page.number for page in self.pages]


class PagePool:
    """All pages of a cache. The pool only decides which page holds what; the backend moves the data."""

    def __init__(self, n_pages: int, size: int) -> None:
        self.n_pages = n_pages
        self.size = size
        self.free = list(range(n_pages))
        """Numbers of the pages without content, ascending."""
        self.evictable: OrderedDict[Page, None] = OrderedDict()
        """Pages with content that no sequence holds, the least recently used first."""
        self.children: dict[Page | None, list[Page]] = {}
        """The page before -> the pages with content that continue there, in the order of their tokens."""

    @property
    def n_held(self) -> int:
        """Number of pages that some sequence holds."""
        return self.n_pages - len(self.free) - len(self.evictable)

    def pages_for(self, n_tokens: int) -> int:
        """Number of pages that `n_tokens` tokens need."""
        return pages_of(n_tokens, self.size)

    def lease(self, tokens: Sequence[int], n_tokens: int, reuse: bool = True) -> Lease | None:
        """Pages for a sequence that begins with `tokens` and grows to `n_tokens`; None if too few are free.

        With `reuse`, keys and values that other sequences have computed are shared, except those of the last of
        `tokens`, which must be computed to get logits.
        """
        shared, partial, n_partial = self._match(tokens[:-1]) if reuse else ([], None, 0)
        n_new = self.pages_for(n_tokens) - len(shared)
        if n_new > len(self.free) + len(self.evictable) - sum(page.holders == 0 for page in shared):
            return None
        for page in shared:
            page.holders += 1
            self.evictable.pop(page, None)
        new = self._take(n_new)
        copy = None
        if partial is not None:
            copy = partial.number, new[0].number
        lease = Lease(shared + new, len(shared) * self.size + n_partial, copy)
        self._record_content(lease, tokens[: lease.n_cached], len(shared))
        return lease

    def record(self, lease: Lease, tokens: Sequence[int]) -> None:
        """Record that the pages of a lease now hold the keys and values of `tokens`, the sequence from its start."""
        first = lease.n_cached // self.size
        lease.n_cached = len(tokens)
        self._record_content(lease, tokens, first)

    def record_next(self, lease: Lease, tokens: Sequence[int]) -> None:
        """As `record` for the next one of `tokens` alone. It is shared once its page is full or `record` is called."""
        if (lease.n_cached + 1) % self.size:
            lease.n_cached += 1
        else:
            self.record(lease, tokens[: lease.n_cached + 1])

    def release(self, lease: Lease) -> None:
        """Return the pages. The last one will be evicted first, so that no page outlives the one before it."""
        for page in reversed(lease.pages):
            page.holders -= 1
            if page.holders == 0 and page.tokens:
                self.evictable[page] = None
            elif page.holders == 0:
                self.free.append(page.number)
        self.free.sort()
        lease.pages = []

    def _match(self, tokens: Sequence[int]) -> tuple[list[Page], Page | None, int]:
        """The full pages that match the start of `tokens`, the page that best matches the rest, and how far."""
        shared: list[Page] = []
        parent, at = None, 0
        while at < len(tokens):
            rest = list(tokens[at : at + self.size])
            best, n_matching = None, 0
            siblings = self.children.get(parent, [])
            place = bisect_left(siblings, rest, key=tokens_of)
            for page in siblings[max(0, place - 1) : place + 1]:  # no other has a longer prefix in common with it
                n = common_prefix(page.tokens, rest)
                if n > n_matching:
                    best, n_matching = page, n
            if n_matching < self.size:
                return shared, best, n_matching
            assert best is not None
            shared.append(best)
            parent, at = best, at + self.size
        return shared, None, 0

    def _take(self, count: int) -> list[Page]:
        """Empty pages, adjacent if possible, because the torch backend can then read them without a copy."""
        run = next((i for i in range(len(self.free) - count + 1) if self.free[i + count - 1] - self.free[i] < count), 0)
        numbers, self.free[run : run + count] = self.free[run : run + count], []
        while len(numbers) < count:
            numbers.append(self._evict())
        return [Page(number, holders=1) for number in sorted(numbers)]

    def _evict(self) -> int:
        """Drop the content of the least recently used page that no sequence holds, and return its number."""
        page, _ = self.evictable.popitem(last=False)
        self._forget(page)
        return page.number

    def _forget(self, page: Page) -> None:
        """Take a page with content out of the tree."""
        siblings = self.children[page.parent]
        del siblings[siblings.index(page, bisect_left(siblings, page.tokens, key=tokens_of))]
        if not siblings:
            del self.children[page.parent]

    def _record_content(self, lease: Lease, tokens: Sequence[int], first: int) -> None:
        """Record the content of a lease's pages, starting with the page at index `first`."""
        for i in range(first, self.pages_for(len(tokens))):
            page = lease.pages[i]
            begin = i * self.size + len(page.tokens)
            new = tokens[begin : (i + 1) * self.size]
            if not new:
                continue
            if page.tokens:
                self._forget(page)
            else:
                page.parent = lease.pages[i - 1] if i else None
            page.tokens += new
            insort(self.children.setdefault(page.parent, []), page, key=tokens_of)


def tokens_of(page: Page) -> list[int]:
    """The tokens whose keys and values a page holds, by which pages are ordered."""
    return page.tokens


def pages_of(n_tokens: int, page_size: int) -> int:
    """Number of pages of `page_size` tokens that hold `n_tokens` tokens."""
    return -(-n_tokens // page_size)


def pages_of_all(lengths: Iterable[int], page_size: int) -> int:
    """Number of pages of `page_size` tokens that hold sequences of these lengths in tokens, none of which share one."""
    return sum(pages_of(length, page_size) for length in lengths)
