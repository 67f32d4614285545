"""Who holds which page of the key-value cache: sharing by content, reference counts, and what is forgotten first.

A page knows the tokens whose keys and values it holds and the page before it, so that pages form a tree whose paths
are texts (RadixAttention; Zheng et al., section 3). A new sequence follows the tree as far as its own tokens go: whole
pages are shared, a page that agrees in part is copied. Pages that nobody holds keep their content until they are
needed, the one not used for the longest time going first.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(eq=False)
class Page:
    """One page of the cache."""

    number: int
    parent: "Page | None" = None
    """The page before it in its text; None for the first."""
    tokens: list[int] = field(default_factory=list)
    """The tokens whose keys and values it holds for good."""
    holders: int = 0


@dataclass(eq=False)
class Lease:
    """The pages of one sequence, enough for all that it may ever need."""

    pages: list[Page]
    n_cached: int
    """Tokens whose keys and values these pages hold."""
    copy_on_write: tuple[int, int] | None
    """Page numbers (source, target): the copy that makes `n_cached` true, to be done before anything is written."""

    @property
    def numbers(self) -> list[int]:
        """Page numbers, in order."""
        return [page.number for page in self.pages]


class PagePool:
    """All pages of a cache. It moves no data: it decides what is where."""

    def __init__(self, n_pages: int, size: int) -> None:
        self.n_pages = n_pages
        self.size = size
        self.free = list(range(n_pages))
        """Pages without content, ascending."""
        self.evictable: OrderedDict[Page, None] = OrderedDict()
        """Pages with content that nobody holds, the least recently used first."""
        self.children: dict[tuple[Page | None, int], list[Page]] = {}
        """Pages with content by the page before them and their first token."""

    @property
    def n_held(self) -> int:
        """Pages that some sequence holds."""
        return self.n_pages - len(self.free) - len(self.evictable)

    def pages_for(self, n_tokens: int) -> int:
        """Pages that hold so many tokens."""
        return -(-n_tokens // self.size)

    def lease(self, tokens: Sequence[int], n_tokens: int, reuse: bool = True) -> Lease | None:
        """Pages for a sequence that begins with `tokens` and grows to `n_tokens`; None when there are not enough.

        With `reuse`, what other sequences have computed is taken over, all but the last of `tokens` at most, since
        logits come from computing it.
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
        self._note_content(lease, tokens[: lease.n_cached], len(shared))
        return lease

    def record(self, lease: Lease, tokens: Sequence[int]) -> None:
        """Say that a lease's pages hold the keys and values of `tokens`, the sequence from its beginning."""
        first = lease.n_cached // self.size
        lease.n_cached = len(tokens)
        self._note_content(lease, tokens, first)

    def release(self, lease: Lease) -> None:
        """Give the pages back. The last one is forgotten first, so no page outlives the one before it."""
        for page in reversed(lease.pages):
            page.holders -= 1
            if page.holders == 0 and page.tokens:
                self.evictable[page] = None
            elif page.holders == 0:
                self.free.append(page.number)
        self.free.sort()
        lease.pages = []

    def _match(self, tokens: Sequence[int]) -> tuple[list[Page], Page | None, int]:
        """The whole pages that begin `tokens`, a page that goes on from there, and how many of its tokens agree."""
        shared: list[Page] = []
        parent, at = None, 0
        while at < len(tokens):
            rest = tokens[at : at + self.size]
            best, agree = None, 0
            for page in self.children.get((parent, rest[0]), ()):
                n = agreement(page.tokens, rest)
                if n > agree:
                    best, agree = page, n
            if agree < self.size:
                return shared, best, agree
            assert best is not None
            shared.append(best)
            parent, at = best, at + self.size
        return shared, None, 0

    def _take(self, count: int) -> list[Page]:
        """Pages without content, neighbours if possible: the torch backend then reads them without a copy."""
        run = next((i for i in range(len(self.free) - count + 1) if self.free[i + count - 1] - self.free[i] < count), 0)
        numbers, self.free[run : run + count] = self.free[run : run + count], []
        while len(numbers) < count:
            numbers.append(self._evict())
        return [Page(number, holders=1) for number in sorted(numbers)]

    def _evict(self) -> int:
        """Drop the content of the least recently used page that nobody holds; its number."""
        page, _ = self.evictable.popitem(last=False)
        siblings = self.children[page.parent, page.tokens[0]]
        siblings.remove(page)
        if not siblings:
            del self.children[page.parent, page.tokens[0]]
        return page.number

    def _note_content(self, lease: Lease, tokens: Sequence[int], first: int) -> None:
        """Note the content of a lease's pages from the one with index `first` on."""
        for i in range(first, self.pages_for(len(tokens))):
            page = lease.pages[i]
            begin = i * self.size + len(page.tokens)
            new = tokens[begin : (i + 1) * self.size]
            if new and not page.tokens:
                page.parent = lease.pages[i - 1] if i else None
                self.children.setdefault((page.parent, new[0]), []).append(page)
            page.tokens += new


def agreement(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts begin with alike."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
