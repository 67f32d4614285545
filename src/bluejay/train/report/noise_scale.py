"""The gradient noise scale: the batch size up to which larger batches save steps."""

DECAY = 0.98
"""Decay of the running means; the estimates of a single step are too noisy to divide."""


class NoiseScale:
    """Batch size in tokens at which noise and gradient are equally large (McCandlish et al. 2018, appendix A.1).

    Doubling a batch well below it halves the number of steps; batches well above it waste tokens. Tokens of a sequence
    are not independent, so the estimate is one of sequences, times their length. `small` and `big` are the two batch
    sizes in tokens.
    """

    def __init__(self, small: int, big: int) -> None:
        assert small < big
        self.small, self.big = small, big
        self.noise = self.signal = 0.0

    def add(self, small_norm: float, big_norm: float) -> float | None:
        """Add the norms of the mean gradients of the two batch sizes; the small batch is a part of the big one.

        Returns the estimate so far, or None while noise dominates.
        """
        small, big = small_norm**2, big_norm**2
        signal = (self.big * big - self.small * small) / (self.big - self.small)
        noise = (small - big) / (1 / self.small - 1 / self.big)
        self.signal += (1 - DECAY) * (signal - self.signal)
        self.noise += (1 - DECAY) * (noise - self.noise)
        return self.noise / self.signal if self.signal > 0 and self.noise > 0 else None
