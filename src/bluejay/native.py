"""The compiled part of the package (`native/`); None if there was no compiler when the package was installed."""

import importlib
from typing import Any

try:
    native: Any = importlib.import_module("bluejay._native")
except ImportError:
    native = None
