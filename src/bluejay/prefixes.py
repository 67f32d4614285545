"""What two texts begin with in common."""

from collections.abc import Sequence


def common_prefix(one: Sequence[int] | str, other: Sequence[int] | str) -> int:
    """The length of the common prefix of two texts, in tokens or, of strings, in characters."""
    n = min(len(one), len(other))
    if one[:n] == other[:n]:
        return n
    low, high = 0, n  # they agree before `low`, and differ before `high`
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle)
    return low
