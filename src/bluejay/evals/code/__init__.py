"""Programs as answers: problems, completions, and verdicts on them that come from outside the cage."""

from bluejay.evals.code.extract import cut, from_answer, program
from bluejay.evals.code.grade import Score, Verdict, grade, grade_all, pass_at_k, score_file
from bluejay.evals.code.problems import Problem, problem_of, problems, problems_from

__all__ = [
    "Problem", "Score", "Verdict", "cut", "from_answer", "grade", "grade_all", "pass_at_k", "problem_of", "problems",
    "problems_from", "program", "score_file",
]  # fmt: skip
