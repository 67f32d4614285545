"""The cage: the sandbox of programs that a model wrote, in which they do no harm and cannot forge their own verdict."""

from bluejay.evals.cage.launch import LEVELS, USUAL, CageError, Limits, Outcome, Raised, choose, level, run
from bluejay.evals.cage.plain import NotPlain

__all__ = ["LEVELS", "USUAL", "CageError", "Limits", "NotPlain", "Outcome", "Raised", "choose", "level", "run"]
