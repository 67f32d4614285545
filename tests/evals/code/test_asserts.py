"""An assert is split so that the expected value stays outside, and only if what stays outside is harmless."""

import pytest

from bluejay.evals.cage import NotPlain
from bluejay.evals.code.asserts import Test, holds, split_assert


@pytest.mark.parametrize(
    ("assertion", "calls", "check"),
    [
        ("assert f(1, [2], k=(3,)) == {'a': 4}", ["f(1, [2], k=(3,))"], "_0 == {'a': 4}"),
        ("assert f(range(9)) == 3 + 4 * 5, 'message'", ["f(range(9))"], "_0 == 3 + 4 * 5"),
        ("assert not f(1)", ["f(1)"], "not _0"),
        ("assert f(f(2)) is True", ["f(f(2))"], "_0 is True"),
        ("assert abs(f(1) - f(2)) < 1e-6", ["f(1)", "f(2)"], "abs(_0 - _1) < 1e-06"),
        ("assert tuple(sorted(f(2))) == tuple([1, 2])", ["tuple(sorted(f(2)))"], "_0 == tuple([1, 2])"),
        ("assert sorted(f(2), reverse=True) == [2, 1]", ["sorted(f(2), reverse=True)"], "_0 == [2, 1]"),
        ("assert max(f(1), 2) == max([f(3)])", ["f(1)", "f(3)"], "max(_0, 2) == max([_1])"),
        ("assert math.isclose(f(1), 0.5, rel_tol=0.01)", ["f(1)"], "math.isclose(_0, 0.5, rel_tol=0.01)"),
        ("assert f(secrets(open('x'))) == 1", ["f(secrets(open('x')))"], "_0 == 1"),
    ],
)
def test_what_stays_inside_and_what_outside(assertion, calls, check):
    assert split_assert(assertion, ["f"]) == Test(tuple(calls), check)


@pytest.mark.parametrize(
    "assertion",
    [
        *("assert True", "assert g(1) == 1", "assert f(1) == g(1)", "assert f(1).x == 1", "assert f(1)[0] == 1"),
        *("assert f(1) * 10**9 == 1", "assert f(1) * 5 == 1", "assert f('x') % 5 == '5'", "assert 9**9**9 == f(1)"),
        *("assert [f(x) for x in range(2)] == [0, 1]", "assert eval('f(1)') == 1", "assert (lambda: f(1))() == 1"),
        *(
            "assert __import__('os').system('x') == f(1)",
            "assert f(1) == open('/etc/passwd').read()",
            "assert math.f(1).g == 1",
        ),
        "assert f(1) == f'{1:9999999999}'",
        *("assert f(1) == 1\nassert f(2) == 2", "x = 1\nassert f(x) == 1"),  # none of them is left out
    ],
)
def test_what_is_not_plainly_harmless_is_not_evaluated_outside(assertion):
    assert split_assert(assertion, ["f"]) is None


@pytest.mark.parametrize(
    ("check", "values", "expected"),
    [
        ("_0 == 42", [42], True),
        ("_0 == 42", ["42"], False),
        ("_0 == [1, (2, {3})]", [[1, (2, {3})]], True),
        ("_0 == (1, 2)", [[1, 2]], False),
        ("abs(_0 - 0.5) < 1e-06", [None], False),
        ("len(_0) == 1", [NotPlain("Sized")], False),
        ("_0 == 1 or _0 != 1", [NotPlain("Same")], True),
        ("_0 / _1 == 1", [1, 0], False),
        ("_0", [[]], False),
        ("str(_0) == '1'", [10**5000], False),
    ],
)
def test_checks(check, values, expected):
    assert holds(Test(("f()",) * len(values), check), values) is expected
