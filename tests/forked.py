"""What the processes that tests fork have imported and measured, so that none of them does it again.

multiprocessing has one process to fork from for all tests of a worker, which imports this module.
"""

import io

import matplotlib.pyplot  # noqa: F401
import torch
import torch._dynamo  # the first step of an optimizer imports it
from matplotlib.figure import Figure

import bluejay.train.loop  # noqa: F401
import tests.serve.programs  # noqa: F401
from bluejay.machine import matmul_rate

torch.set_num_threads(1)
Figure(layout="constrained").savefig(io.BytesIO())  # fonts are read for the first figure
for dtype in (torch.float32, torch.bfloat16):
    matmul_rate(torch.device("cpu"), dtype)
