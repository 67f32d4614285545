"""Steps that a GPU repeats without Python: the kernels of each shape are recorded once, as a CUDA graph."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bluejay.progress import say

WARMUP = 3
"""Calls before a graph is recorded, in which torch compiles and libraries choose their kernels (torch's own advice)."""


@dataclass(frozen=True)
class Place:
    """The inputs of one shape, which stay where they are, and the graph that reads them."""

    inputs: tuple[Tensor, ...]
    graph: "torch.cuda.CUDAGraph | None"
    """None where the function is called each time."""
    output: Tensor | None
    """Where the graph writes."""


class Replayed:
    """Calls a function of tensors whose shapes return. The inputs are copied to a place that their shapes keep; on
    CUDA, what the function does there is recorded at the first call and repeated later. The output holds until the next
    call.

    Calling the function twice with the same inputs must change no more than calling it once.
    """

    def __init__(self, function: Callable[..., Tensor], device: torch.device) -> None:
        self.function = function
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        """The stream that records; None if the device cannot record the function."""
        self.places: dict[tuple[torch.Size, ...], Place] = {}
        self.pool = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        shapes = tuple(tensor.shape for tensor in inputs)
        with torch.cuda.device_of(inputs[0]):
            if shapes not in self.places:
                self.places[shapes] = self.place(tuple(tensor.clone() for tensor in inputs))
            place = self.places[shapes]
            for kept, new in zip(place.inputs, inputs, strict=True):
                kept.copy_(new)
            if place.graph is None or place.output is None:
                return self.function(*place.inputs)
            place.graph.replay()
            return place.output

    def place(self, inputs: tuple[Tensor, ...]) -> Place:
        """A place for inputs of new shapes; without a graph if the device cannot record the function."""
        if self.stream is None:
            return Place(inputs, None, None)
        current = torch.cuda.current_stream()
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            for _ in range(WARMUP):
                self.function(*inputs)
        current.wait_stream(self.stream)
        graph = torch.cuda.CUDAGraph()
        try:  # other threads may use the device meanwhile
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
                output = self.function(*inputs)
        except RuntimeError as error:
            torch.cuda.set_stream(current)  # which a failed recording leaves at its own
            say(f"WARNING: steps are not recorded as CUDA graphs: {str(error).splitlines()[0]}")
            self.stream = None
            return Place(inputs, None, None)
        self.pool = graph.pool()
        return Place(inputs, graph, output)
