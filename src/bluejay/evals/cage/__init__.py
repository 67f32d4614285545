"""The cage: where programs that a model wrote run, so that they can do no harm and cannot forge their own verdict."""

from bluejay.evals.cage.launch import LEVELS, USUAL, CageError, Limits, Outcome, Raised, choose, level, run
from bluejay.evals.cage.plain import NotPlain

__all__ = ["LEVELS", "USUAL", "CageError", "Limits", "NotPlain", "Outcome", "Raised", "choose", "level", "run"]
