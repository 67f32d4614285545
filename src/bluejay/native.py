"""The compiled half of the package (`native/`), which is there where there was a compiler."""

import importlib
from typing import Any

try:
    native: Any = importlib.import_module("bluejay._native")
except ImportError:
    native = None
