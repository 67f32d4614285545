"""Probes of what a model writes about people and on sensitive subjects. None of them says that a model is safe."""

from bluejay.evals.safety.continuations import DESCRIPTIONS_OF_GROUPS, SENSITIVE_PROMPTS
from bluejay.evals.safety.decisions import DECISIONS_ABOUT_PEOPLE
from bluejay.evals.safety.descriptors import descriptors
from bluejay.evals.safety.offensive import CLASSIFIER, LIMITS, classifier

PROBES = (DECISIONS_ABOUT_PEOPLE, SENSITIVE_PROMPTS, DESCRIPTIONS_OF_GROUPS)
"""The tasks of the suite `safety` that are ours."""
WARNING = (
    "The texts of this section were written by models. Some may be offensive, false or distressing, and nobody holds "
    "the opinions in them."
)

__all__ = ["CLASSIFIER", "LIMITS", "PROBES", "WARNING", "classifier", "descriptors"]
