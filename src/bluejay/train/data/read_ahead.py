"""Batches that are read while the step before them is computed."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from bluejay.train.data.batches import TrainBatch


class ReadAhead:
    """Calls `read`, which makes the batch of a step, one step ahead in a thread. For a GPU the batches lie in pinned
    memory, from which they are copied without waiting."""

    def __init__(self, read: Callable[[int], TrainBatch], pinned: bool) -> None:
        self.read, self.pinned = read, pinned
        self.thread = ThreadPoolExecutor(1, "batches")
        self.step: int | None = None
        """The step whose batch is being read."""
        self.coming: Future[TrainBatch] | None = None

    def batch(self, step: int) -> TrainBatch:
        """The batch of a step. Raises as `read`."""
        batch = self.coming.result() if self.coming is not None and self.step == step else self._make(step)
        self.step = step + 1
        self.coming = self.thread.submit(self._make, self.step)
        return batch

    def close(self) -> None:
        """Let the thread end."""
        self.thread.shutdown(cancel_futures=True)

    def _make(self, step: int) -> TrainBatch:
        batch = self.read(step)
        return batch.pin() if self.pinned else batch
