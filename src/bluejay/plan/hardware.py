"""A machine or a cluster as numbers: what `bluejay plan` reckons with, read from TOML or measured here."""

from dataclasses import dataclass
from pathlib import Path

import torch

from bluejay import recipe as recipes
from bluejay.machine import fastest, matmul_rate, memory_bandwidth, physical_memory
from bluejay.native import native
from bluejay.recipe import STRICT


@dataclass(frozen=True)
class Link:
    """How devices talk to each other."""

    __pydantic_config__ = STRICT
    bandwidth: float
    """GB/s that one device sends, while it receives as much."""
    share: float = 1.0
    """Of that, what collective operations reach."""
    latency: float = 5e-6
    """Seconds that each step of a collective operation takes however little it sends."""

    @property
    def rate(self) -> float:
        """Bytes a second that collective operations reach."""
        return 1e9 * self.bandwidth * self.share


@dataclass(frozen=True)
class Hardware:
    """Devices, all alike, in nodes. Figures of the data sheet, and beside them the share that programs reach."""

    __pydantic_config__ = STRICT
    name: str
    devices: int
    """How many there are to use."""
    node: int
    """Devices in a node, within which `inside` connects them; nodes are connected by `network`."""
    memory: float
    """GB of each device."""
    bandwidth: float
    """GB/s between a device and its memory."""
    bfloat16: float
    """TFLOP/s of a device's matrix products; half precision for those that have no bfloat16."""
    float32: float
    inside: Link
    network: Link
    matmul_share: float = 1.0
    """Of the rate of matrix products, what those of a training step reach."""
    bandwidth_share: float = 1.0
    """Of the memory's bandwidth, what norms, activations and the optimizer reach."""
    reserved: float = 1.0
    """GB of each device that libraries and the allocator take."""
    fused_attention: bool = True
    """Whether the scores of attention stay on the chip (FlashAttention, section 3.1) or pass through memory."""
    fused_kernels: bool = False
    """Whether norm, rotary angles, attention and activation are kernels of our own (`bluejay.gpt.kernels`)."""
    price: float = 0.0
    """Of one device for an hour, in US dollars."""

    def __post_init__(self) -> None:
        for name in ("devices", "node", "memory", "bandwidth", "bfloat16", "float32", "matmul_share"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")

    def rate(self, precision: str) -> float:
        """Peak FLOP/s of one device's matrix products."""
        return 1e12 * (self.float32 if precision == "float32" else self.bfloat16)

    def seconds_to_pass(self, size: float) -> float:
        """How long `size` bytes take between a device and its memory."""
        return size / (1e9 * self.bandwidth * self.bandwidth_share)

    def seconds_to_send(self, size: float, group: int, spacing: int) -> float:
        """How long each device of a group takes to send `size` bytes round a ring of it.

        Its members stand `spacing` devices apart. A ring enters and leaves each node once, and all rings of the node
        share its network, so a ring has as many devices' worth of it as it has members there.
        """
        if group == 1:
            return 0.0
        near = max(1, min(group, self.node // spacing))
        nodes = -(-group // near)
        latency = (group - nodes) * self.inside.latency + (nodes - 1) * self.network.latency
        rate = self.inside.rate if nodes == 1 else min(near * self.network.rate, self.inside.rate)
        return size / rate + latency


def load(path: Path | None, overrides: list[str], tokens: int = 1024, width: int = 1536) -> Hardware:
    """Hardware from TOML, such as recipes/hardware/h100.toml, or this machine, measured for a run that multiplies so
    many tokens at a time by matrices of this width. Raises as `bluejay.recipe.load`."""
    if path is not None:
        return recipes.load(Hardware, path, overrides)
    values = recipes.plain(measured(tokens, width))
    for key, value in recipes.parse_overrides(overrides):
        recipes.set_key(values, key, value)
    return recipes.check(Hardware, values, "this machine")


def split(overrides: list[str]) -> tuple[list[str], list[str]]:
    """Overrides of a recipe, and those of hardware, which are written `--hardware.field value`."""
    own: list[str] = []
    hardware: list[str] = []
    chosen = own
    for argument in overrides:
        if argument.startswith("--"):
            chosen = hardware if argument.startswith("--hardware.") else own
        chosen.append(argument.replace("--hardware.", "--", 1) if chosen is hardware else argument)
    return own, hardware


def measured(tokens: int = 1024, width: int = 1536) -> Hardware:
    """This machine, in seconds; see `load`. Its processes share the memory, so they count as one device."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        name, memory = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory
        count = torch.cuda.device_count()
    else:
        name, memory, count = f"this CPU, {torch.get_num_threads()} threads", physical_memory(), 1
    bandwidth = memory_bandwidth(device) / 1e9
    local = Link(bandwidth=bandwidth / 2)
    peaks = {dtype: matmul_rate(device, dtype) for dtype in (torch.bfloat16, torch.float32)}
    fast = max(peaks, key=lambda dtype: peaks[dtype])
    return Hardware(
        name=name,
        devices=count,
        node=count,
        memory=memory / 1e9,
        bandwidth=bandwidth,
        bfloat16=peaks[torch.bfloat16] / 1e12,
        float32=peaks[torch.float32] / 1e12,
        inside=local,
        network=local,
        matmul_share=min(1.0, training_rate(device, fast, tokens, width) / peaks[fast]),
        reserved=0.5,
        fused_kernels=device.type == "cpu" and native is not None,
    )


def training_rate(device: torch.device, dtype: torch.dtype, tokens: int, width: int) -> float:
    """FLOP/s of the products that a run makes with the matrices of its MLP, forward and backward.

    Few tokens, or narrow matrices, are multiplied slower than `matmul_rate` says; more than those below are not faster.
    Two matrices take turns, so that large ones come from memory, as they do in a model.
    """
    tokens, width = min(tokens, 1024), min(width, 4096)
    matrices = [torch.randn(4 * width, width, device=device).to(dtype) for _ in range(2)]
    x, d_y = (torch.randn(tokens, side, device=device).to(dtype) for side in (width, 4 * width))
    forward = fastest(lambda: [x @ matrix.T for matrix in matrices], device)
    backward = fastest(lambda: [d_y @ matrix for matrix in matrices], device)
    return 4 * 2 * tokens * 4 * width**2 / (forward + backward)
