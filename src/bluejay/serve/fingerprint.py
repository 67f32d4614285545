"""`system_fingerprint`: as long as it is equal, a seed gives equal text."""

import hashlib
from importlib.metadata import version

import numpy as np
import torch

from bluejay.infer.backends import Backend, StepBatch
from bluejay.tokenizer import Tokenizer


@torch.inference_mode()
def fingerprint(backend: Backend, tokenizer: Tokenizer) -> str:
    """A hash of one step's logits, which depend on every weight and on the arithmetic of this machine, to the last bit.

    The step writes to the first page of the cache, so the cache must be empty.
    """
    one, none = np.array([0, 1], np.int32), np.zeros(1, np.int32)
    batch = StepBatch(np.array([tokenizer.eot], np.int32), one, none, np.zeros((1, 1), np.int32), none)
    logits = backend.step(batch).float().cpu().numpy()
    return "fp_" + hashlib.sha256(version("bluejay").encode() + logits.tobytes()).hexdigest()[:12]
