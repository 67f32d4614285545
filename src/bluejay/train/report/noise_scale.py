"""The gradient noise scale: how large a batch is worth its tokens."""

DECAY = 0.98
"""Of the running means; each of the two estimates alone is far too noisy to divide."""


class NoiseScale:
    """Tokens in a batch at which noise and gradient are as large as each other (McCandlish et al. 2018, appendix A.1).

    Batches well below it could be doubled for half the steps, batches well above it waste tokens. Tokens of a sequence
    are not independent, so the figure is of sequences, times their length.
    """

    def __init__(self, small: int, big: int) -> None:
        assert small < big
        self.small, self.big = small, big
        self.noise = self.signal = self.weight = 0.0

    def add(self, small_norm: float, big_norm: float) -> float | None:
        """Take in the norms of the mean gradients of the two batch sizes, the small batch a part of the big one.

        Gives the estimate so far; None while the noise drowns the gradient altogether.
        """
        small, big = small_norm**2, big_norm**2
        signal = (self.big * big - self.small * small) / (self.big - self.small)
        noise = (small - big) / (1 / self.small - 1 / self.big)
        self.signal += (1 - DECAY) * (signal - self.signal)
        self.noise += (1 - DECAY) * (noise - self.noise)
        return self.noise / self.signal if self.signal > 0 and self.noise > 0 else None
