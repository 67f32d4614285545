"""AdamW and the learning rate over time."""

import math

import torch

from bluejay.train.recipe import Optimizer, Schedule


def adamw(model: torch.nn.Module, settings: Optimizer) -> torch.optim.AdamW:
    """AdamW that decays matrices, the embedding too, but not biases and norms, as mesh-transformer-jax did."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=settings.betas, eps=settings.eps, fused=True)


def learning_rate(step: int, steps: int, peak: float, schedule: Schedule) -> float:
    """The rate of a step, counted from 0: linear up to the peak, half a cosine down to the floor, then the floor."""
    warmup, decay = schedule.warmup * steps, schedule.decay * steps
    if step < warmup:
        return peak * (step + 1) / (math.floor(warmup) + 1)
    done = min(1.0, (step - warmup) / max(1.0, decay - warmup))
    return peak * (schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * done)) / 2)
