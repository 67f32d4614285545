"""Pages are shared between equal prefixes, never lost, and never allocated twice."""

from hypothesis import given, settings
from hypothesis import strategies as st

from bluejay.infer.cache import PagePool
from bluejay.prefixes import common_prefix

letters = st.lists(st.integers(0, 1), min_size=1, max_size=20)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(1, 30), st.sampled_from([1, 2, 4, 8]))
def test_pages_hold_the_recorded_tokens(data, n_pages, size):
    pool = PagePool(n_pages, size)
    # What a backend would have in each place of each page, were it told to copy and to write what the leases say.
    content = {}
    running = []

    def write(lease, tokens, start):
        for at in range(start, len(tokens)):
            content[lease.numbers[at // size], at % size] = tuple(tokens[: at + 1])

    for _ in range(data.draw(st.integers(1, 25))):
        if running and data.draw(st.booleans()):
            lease, tokens, grown = running.pop(data.draw(st.integers(0, len(running) - 1)))
            if len(tokens) < len(grown) and data.draw(st.booleans()):
                longer = grown[: data.draw(st.integers(len(tokens), len(grown)))]
                write(lease, longer, len(tokens))
                for _ in range(data.draw(st.integers(0, len(longer) - len(tokens)))):
                    pool.record_next(lease, longer)
                if data.draw(st.booleans()):
                    pool.record(lease, longer)
                longer = longer[: lease.n_cached]
                running.append((lease, longer, grown))
            else:
                pool.release(lease)
            continue
        grown = data.draw(letters)
        tokens = grown[: data.draw(st.integers(1, len(grown)))]
        held = pool.n_held
        lease = pool.lease(tokens, len(grown))
        if lease is None:
            assert pool.pages_for(len(grown)) > n_pages - held
            continue
        assert lease.n_cached < len(tokens) and len(lease.pages) == pool.pages_for(len(grown))
        if lease.copy_on_write:
            source, target = lease.copy_on_write
            content.update({(target, at): content[source, at] for at in range(size) if (source, at) in content})
        for at in range(lease.n_cached):
            assert content[lease.numbers[at // size], at % size] == tuple(tokens[: at + 1])
        write(lease, tokens, lease.n_cached)
        pool.record(lease, tokens)
        running.append((lease, tokens, grown))
        for other, text, _ in running:
            for at in range(len(text)):
                assert content[other.numbers[at // size], at % size] == tuple(text[: at + 1])
    for lease, _, _ in running:
        pool.release(lease)
    assert pool.n_held == 0
    assert sorted(pool.free + [page.number for page in pool.evictable]) == list(range(n_pages))


@settings(deadline=None)
@given(st.lists(letters, max_size=12), letters, st.sampled_from([1, 2, 4, 8]))
def test_the_longest_beginning_that_was_computed_is_reused(texts, wanted, size):
    pool = PagePool(1000, size)
    for text in texts:
        lease = pool.lease(text, len(text))
        for n in range(lease.n_cached, len(text)):  # pages grow, and must stay in their order
            pool.record(lease, text[: n + 1])
        pool.release(lease)
    assert pool.lease(wanted, 20).n_cached == max([common_prefix(text, wanted[:-1]) for text in texts], default=0)


def test_the_least_recently_used_page_is_evicted_first():
    pool = PagePool(4, 2)
    for text in ([1, 1, 1], [2, 2, 2], [1, 1, 1]):
        lease = pool.lease(text, 3)
        pool.record(lease, text)
        pool.release(lease)
    pool.release(pool.lease([3, 3, 3], 3))  # needs two pages: those of the twos
    assert pool.lease([1, 1, 1], 3).n_cached == 2
    assert pool.lease([2, 2, 2], 3).n_cached == 0


def test_adjacent_pages_are_preferred():
    pool = PagePool(8, 1)
    first, second, third = (pool.lease([i], 2) for i in range(3))
    pool.release(first)
    pool.release(third)
    assert pool.lease([9], 4).numbers == [4, 5, 6, 7]
    assert second.numbers == [2, 3]


def test_a_prompt_that_must_be_computed_reuses_nothing():
    pool = PagePool(8, 2)
    lease = pool.lease([1, 2, 3], 3)
    pool.record(lease, [1, 2, 3])
    assert pool.lease([1, 2, 3, 4], 4).n_cached == 3
    assert pool.lease([1, 2, 3, 4], 4, reuse=False).n_cached == 0
