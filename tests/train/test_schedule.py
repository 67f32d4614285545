"""The learning rate: a warm-up, then GPT-3's cosine, a constant, or a stable rate and a cooldown."""

import math

import pytest

from bluejay.train.loop import train
from bluejay.train.schedule import Schedule, learning_rate


def test_gpt_js_schedule_at_its_own_steps():
    # GPT-J: warm-up 3,000, cosine over 300,000, then 1.2e-5 flat, of 350,000 steps at a peak of 1.2e-4.
    schedule = Schedule(warmup=3000 / 350_000, decay=303_000 / 350_000, final=0.1)

    def rate(step):
        return learning_rate(step, 350_000, 1.2e-4, schedule)

    assert rate(1500) == pytest.approx(0.6e-4, rel=1e-3)
    assert rate(3000) == pytest.approx(1.2e-4)
    for step in (50_000, 153_000, 250_000):
        cosine = 1.2e-4 - (1.2e-4 - 1.2e-5) * (1 - math.cos(math.pi * (step - 3000) / 300_000)) / 2
        assert rate(step) == pytest.approx(cosine)
    assert rate(303_000) == rate(349_999) == pytest.approx(1.2e-5)


def test_a_short_run_rises_then_falls_and_never_stands_still():
    rates = [learning_rate(step, 100, 1.0, Schedule(warmup=0.1, final=0.0)) for step in range(100)]
    assert rates[0] > 0
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == 1.0


def test_a_constant_rate_stays_at_the_peak_after_the_warm_up():
    rates = [learning_rate(step, 100, 2.0, Schedule("constant", warmup=0.1)) for step in range(100)]
    assert rates[:10] == sorted(rates[:10]) and rates[0] > 0 and set(rates[10:]) == {2.0}


@pytest.mark.parametrize("steps", [5, 97, 100, 1000])
def test_wsd_stays_at_the_peak_and_falls_along_one_minus_the_root(steps):
    # Haegele et al. 2024, equation 1 with f(n) = 1 - sqrt((n - n_stable) / n_decay) at steps n from 0.
    schedule = Schedule("wsd", warmup=0.1, cooldown=0.2, final=0.05)
    stable = schedule.cooldown_step(steps)
    rates = [learning_rate(step, steps, 1.0, schedule) for step in range(steps)]
    assert set(rates[math.ceil(0.1 * steps) : stable]) == {1.0}
    falls = [0.05 + 0.95 * (1 - math.sqrt(done / (steps - stable))) for done in range(steps - stable)]
    assert rates[stable:] == pytest.approx(falls)


@pytest.mark.parametrize("steps", [1, 5, 1000])
@pytest.mark.parametrize("kind", ["cosine", "constant", "wsd"])
def test_no_step_is_taken_at_a_rate_of_0(kind, steps):
    schedule = Schedule(kind, final=0.0)
    schedule.check_used()
    assert all(learning_rate(step, steps, 1.0, schedule) > 0 for step in range(steps))
    with pytest.raises(ValueError, match=r"final is 0 and decay 0\.8, .* raise final, or leave decay out"):
        Schedule(decay=0.8, final=0.0).check_used()


@pytest.mark.parametrize("wrong", [{"cooldown": 0.0}, {"cooldown": 1.1}, {"warmup": 0.5, "cooldown": 0.6}])
def test_a_cooldown_that_does_not_fit_is_refused(wrong):
    with pytest.raises(ValueError, match=r"train\.schedule\.cooldown is .*(at most 1 - warmup|a fraction of the run)"):
        Schedule("wsd", **wrong)


def test_steps_in_place_of_a_fraction_are_told_how_they_are_written():
    with pytest.raises(ValueError, match=r"warmup is 2000; it is a fraction of the run, .*: N steps of M are N/M"):
        Schedule(warmup=2000)
    with pytest.raises(ValueError, match=r"final is 2; it is a fraction of train\.lr"):
        Schedule(final=2)


@pytest.mark.parametrize(("field", "kind"), [("decay", "wsd"), ("decay", "constant"), ("cooldown", "cosine")])
def test_a_new_run_has_no_field_that_its_schedule_would_ignore(field, kind, recipe_file, load_recipe):
    overrides = ("--train.schedule.kind", kind, f"--train.schedule.{field}", "0.5")
    with pytest.raises(ValueError, match=rf'schedule\.{field} is 0\.5, .* in place of "{kind}"'):
        train(load_recipe(recipe_file, *overrides))
