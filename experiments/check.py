"""Makes every page of figures again from the committed results, and fails where a number or a word differs.

    python experiments/check.py

The pages of the claims and of bluejay-nano come from the lines in `experiments/results/`, the model's card from the
records of its run beside it.
"""

import argparse
import difflib
import sys
from collections.abc import Callable
from pathlib import Path

import data_mix
import nano
import narrow
import scaling
import specialist
import values
from study import ROOT, page_of, recorded

from bluejay.demo import RELEASED
from bluejay.model_card import CARD

PAGES: dict[str, Callable[[], str]] = {
    scaling.STUDY: scaling.page,
    data_mix.STUDY: data_mix.page,
    specialist.STUDY: specialist.page,
    narrow.STUDY: narrow.page,
    values.STUDY: values.page,
}


def made() -> dict[Path, str]:
    """The pages of all studies, also of those without results, and what they should say."""
    found = {page_of(study): page() for study, page in PAGES.items()}
    if recorded(nano.STUDY):
        found[nano.PAGE] = nano.page()
    if (ROOT / RELEASED).is_dir():
        found[ROOT / RELEASED / "model" / CARD] = nano.card()
    return found


def main() -> None:
    wrong = 0
    for path, text in made().items():
        there = path.read_text(encoding="utf-8") if path.exists() else ""
        name = str(path.relative_to(ROOT))
        lines = list(difflib.unified_diff(there.splitlines(), text.splitlines(), name, "the results", lineterm="", n=0))
        print("\n".join(lines) or f"{name} says what its results say")
        wrong += bool(lines)
    sys.exit(min(wrong, 1))


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    main()
