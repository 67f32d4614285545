"""Hardware described by numbers, read from TOML or measured on this machine, for `bluejay plan`."""

from dataclasses import dataclass
from pathlib import Path

import torch

from bluejay import recipe as recipes
from bluejay import shipped
from bluejay.machine import fastest, matmul_rate, memory_bandwidth, physical_memory
from bluejay.native import native
from bluejay.recipe import STRICT

MAY_BE_ZERO = ("latency", "reserved", "launch", "pause", "price", "multiprocessors")
"""Figures of a device or link that may be 0."""


@dataclass(frozen=True)
class Link:
    """A connection between devices."""

    __pydantic_config__ = STRICT
    bandwidth: float
    """GB/s that a device can send, while it receives as much."""
    share: float = 1.0
    """Fraction of `bandwidth` that collective operations reach."""
    latency: float = 5e-6
    """Seconds that each step of a collective operation takes in addition to its transfer."""

    @property
    def rate(self) -> float:
        """Bytes per second that collective operations reach."""
        return 1e9 * self.bandwidth * self.share


@dataclass(frozen=True)
class Hardware:
    """Identical devices in nodes: figures of the data sheet, and the fractions of them that programs reach."""

    __pydantic_config__ = STRICT
    name: str
    """Name of a device, for the plan."""
    devices: int
    """Number of devices."""
    node: int
    """Devices in a node; `inside` connects devices of a node, `network` connects nodes."""
    memory: float
    """Memory of a device in GB."""
    bandwidth: float
    """Bandwidth between a device and its memory in GB/s."""
    bfloat16: float
    """Peak of a device's matrix products in bfloat16 (or float16) in TFLOP/s."""
    float32: float
    """Peak of a device's matrix products in float32 in TFLOP/s."""
    inside: Link
    """Connection between the devices of a node."""
    network: Link
    """Connection between nodes, for each device."""
    tf32: float | None = None
    """Peak of its products of float32 that are rounded to TF32, in TFLOP/s. Default: that of float32."""
    matmul_share: float = 1.0
    """Fraction of the peak that the matrix products of a training step reach."""
    attention_share: float | None = None
    """Fraction of the peak that attention reaches, forward and backward; `matmul_share` when not given."""
    multiprocessors: int = 0
    """Units of a device that each compute a tile of a product at a time; 0 if a product always occupies all."""
    bandwidth_share: float = 1.0
    """Fraction of the memory bandwidth that norms, activations and the optimizer reach."""
    reserved: float = 1.0
    """Memory of a device that libraries and the allocator take, in GB."""
    fused_attention: bool = True
    """Whether attention scores stay on the chip (FlashAttention, section 3.1) instead of passing through memory."""
    fused_kernels: bool = False
    """Whether norms, rotary embedding, attention and activation run in native kernels (`bluejay.gpt.kernels`)."""
    launch: float = 0.0
    """Seconds that the program takes to start an operation on a device, which runs the one before meanwhile."""
    pause: float = 0.0
    """Seconds of each step in which a device idles, because the program reads loss and norm before it goes on."""
    price: float = 0.0
    """US dollars for a device and hour."""

    def __post_init__(self) -> None:
        figures = {name: value for name, value in vars(self).items() if type(value) in (int, float)}
        for link in ("inside", "network"):
            figures |= {f"{link}.{name}": value for name, value in vars(getattr(self, link)).items()}
        for name, value in figures.items():
            kind = name.rpartition(".")[2]
            positive, share = kind not in MAY_BE_ZERO, kind.endswith("share")
            above = value > 0 if positive else value >= 0
            if not above or value > (1 if share else 1e18):
                allowed = "above 0" + (" and at most 1" if share else "") if positive else "at least 0"
                raise ValueError(f"{name} is {value}; it must be {allowed}")

    def rate(self, precision: str) -> float:
        """Peak FLOP/s of one device's matrix products."""
        rates = {"bfloat16": self.bfloat16, "float32": self.float32, "tf32": self.tf32 or self.float32}
        return 1e12 * rates[precision]

    def seconds_to_pass(self, size: float) -> float:
        """Seconds to transfer `size` bytes between a device and its memory."""
        return size / (1e9 * self.bandwidth * self.bandwidth_share)

    def seconds_to_send(self, size: float, group: int, spacing: int) -> float:
        """Seconds in which each device of a group sends `size` bytes around a ring.

        The `group` members are `spacing` devices apart. A ring enters and leaves each node once, and all rings of a
        node share its network, so a ring gets the network bandwidth of as many devices as it has members in the node.
        """
        if group == 1:
            return 0.0
        near = max(1, min(group, self.node // spacing))
        nodes = -(-group // near)
        latency = (group - nodes) * self.inside.latency + (nodes - 1) * self.network.latency
        rate = self.inside.rate if nodes == 1 else min(near * self.network.rate, self.inside.rate)
        return size / rate + latency


def load(path: Path | None, overrides: list[str], tokens: int = 1024, width: int = 1536) -> Hardware:
    """Hardware from a TOML file such as recipes/hardware/h100.toml, for which its name, h100, is enough; without one,
    this machine (`measure`).

    Raises the errors of `bluejay.recipe.load`; FileNotFoundError, with the names that there are, for an unknown one.
    """
    if path is not None:
        named = (None if path.exists() else shipped.by_name(Path("hardware") / path)) or shipped.find(path)
        if not named.exists():
            known = [name.removeprefix("hardware/") for name in shipped.recipes() if name.startswith("hardware/")]
            raise FileNotFoundError(
                f"no hardware at {path}; {', '.join(known)} come with bluejay, and "
                f"`bluejay recipes hardware/{known[0]}` copies one to describe another"
            )
        return recipes.load(Hardware, named, overrides)
    return recipes.check(Hardware, recipes.plain(measure(tokens, width)), "this machine", overrides)


def split_overrides(overrides: list[str]) -> tuple[list[str], list[str]]:
    """Separate the overrides of a recipe from those of hardware, which are written `--hardware.field value`."""
    own: list[str] = []
    hardware: list[str] = []
    chosen = own
    for argument in overrides:
        if argument.startswith("--"):
            chosen = hardware if argument.startswith("--hardware.") else own
        chosen.append(argument.replace("--hardware.", "--", 1) if chosen is hardware else argument)
    return own, hardware


def measure(tokens: int = 1024, width: int = 1536) -> Hardware:
    """Measure this machine, for products of `tokens` tokens with matrices of this width; takes some seconds.

    A CPU counts as one device, since its processes share the memory.
    """
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
    """FLOP/s of the products of a run with the matrices of its MLP, forward and backward.

    Few tokens or narrow matrices are multiplied more slowly than `matmul_rate` measures; sizes beyond the limits below
    are not faster. Two matrices alternate, so that large ones are read from memory, as in a model.
    """
    tokens, width = min(tokens, 1024), min(width, 4096)
    matrices = [torch.randn(4 * width, width, device=device).to(dtype) for _ in range(2)]
    x, d_y = (torch.randn(tokens, side, device=device).to(dtype) for side in (width, 4 * width))
    forward = fastest(lambda: [x @ matrix.T for matrix in matrices], device)
    backward = fastest(lambda: [d_y @ matrix for matrix in matrices], device)
    return 4 * 2 * tokens * 4 * width**2 / (forward + backward)
