"""The compiled part of the package (`native/`); None if the package was installed without it, or cannot load it."""

import importlib
from typing import Any

native: Any = None
absent = (
    "was not compiled when bluejay was installed, most likely for want of a C++20 compiler or of Python's headers "
    "(`apt install g++ python3-dev`)"
)
"""Why there is none, as the end of a sentence; of no meaning where there is one."""
try:
    native = importlib.import_module("bluejay._native")
except ModuleNotFoundError:
    pass
except ImportError as error:
    absent = f"cannot be loaded ({error})"
