"""What is pressed, typed or answered while something else is on its way."""

import re

from playwright.sync_api import Page, Route, expect

from tests.serve.page.test_controls import tab
from tests.serve.page.test_inside import BIRTH, STEERING, WITHOUT, drawn, look_inside, note, section
from tests.serve.page.test_run import WORD_BY_WORD, next_frame, open_more, run_button, text_of, writing
from tests.waiting import eventually

COST = {"json": {"steering": {"layer": 1, "plain": 2, "steered": 3}}}


def hold(page: Page, pattern: str | re.Pattern) -> list[Route]:
    """The requests for an address, which get no answer from the server until the test gives one."""
    held: list[Route] = []
    page.route(pattern, lambda route: held.append(route))
    return held


def arrived(page: Page, held: list[Route], n: int) -> bool:
    """Whether so many of them have come in time."""
    return eventually(lambda: len(held) == n or page.wait_for_timeout(20))


def test_what_was_typed_before_the_page_was_loaded_stays_and_the_draft_comes_back(page, server):
    writing(page).fill("a draft")
    page.goto(f"{server.url}/healthz")
    script = hold(page, "**/page.js")
    page.goto(server.url, wait_until="commit")
    writing(page).press_sequentially("typed at once")
    assert arrived(page, script, 1)
    script[0].continue_()
    expect(page.locator("#model")).to_have_text("tiny")
    page.keyboard.type(".")
    assert text_of(page) == "typed at once."
    page.get_by_role("button", name="Undo").click()
    assert text_of(page) == "a draft"


def test_samples_whose_part_of_the_page_does_not_load_come_back_with_it(page):
    open_more(page)
    page.get_by_role("spinbutton", name="Samples").fill("2")
    page.get_by_label("Length").fill("8")
    writing(page).fill("the cat")
    run_button(page).click()
    expect(page.locator("#report")).to_contain_text("16 tokens")
    samples = page.locator(".sample").all_text_contents()
    page.route("**/on_demand/samples.js", lambda route: route.fulfill(status=503))
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("did not load. Reload the page and try again")
    expect(page.locator(".sample")).to_have_count(0)
    page.unroute("**/on_demand/samples.js")
    page.reload()
    expect(page.locator(".sample")).to_have_text(samples)


def test_what_would_change_the_text_during_a_run_says_that_it_must_be_stopped(page, answer_with):
    answer_with(page, " sat")
    writing(page).fill("the cat")
    run_button(page).click()
    expect(page.locator("#report")).to_contain_text("the model ended the text")
    page.evaluate(WORD_BY_WORD)
    run_button(page).click()
    for name in ("Examples", "History"):
        tab(page, name)
        page.get_by_role("tabpanel", name=name).get_by_role("listitem").get_by_role("button").first.click()
        expect(page.get_by_role("alert")).to_have_text("Stop the run first.")
        page.evaluate("document.getElementById('error').textContent = ''")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#report")).to_contain_text("stopped by you")
    assert text_of(page) == "the cat sat"
    tab(page, "Examples")
    page.get_by_role("tabpanel", name="Examples").get_by_role("button").first.click()
    expect(page.locator("#text")).not_to_have_value("the cat sat")
    expect(page.locator("#error")).to_have_text("")


def test_the_checkpoints_on_show_keep_their_text_while_others_are_written(page):
    names = ["step-1", "model"]
    scores = {"share": None, "loss": None, "repeat_gain": 0, "induction": [[0.5]]}
    page.route("**/v1/lens/checkpoints", lambda route: route.fulfill(json={"data": [{"name": one} for one in names]}))
    page.route(re.compile("/checkpoints/[a-z0-9-]+$"), lambda route: route.fulfill(json=scores))
    held = hold(page, "**/v1/lens/checkpoints/*/completions")
    look_inside(page, "the cat")
    birth = section(page, BIRTH)
    birth.get_by_role("button", name="Show the run").click()
    for number, name in enumerate(names, 1):
        assert arrived(page, held, number)
        held[-1].fulfill(json={"text": f" of {name}"})
    slider, text = birth.get_by_label("Checkpoint"), birth.get_by_label("What it writes")
    expect(text).to_have_text("the cat of model")
    birth.get_by_role("button", name="Write again").click()
    assert arrived(page, held, 3)
    held[-1].fulfill(json={"text": " of another run"})
    assert arrived(page, held, 4)
    slider.press("Home")
    expect(text).to_have_text("the cat of step-1")


def test_the_cost_of_a_strength_is_not_told_of_another(page):
    look_inside(page, "the cat")
    held = hold(page, "**/v1/lens")
    section(page, STEERING).get_by_role("button").click()
    slider = page.locator(".sliders").get_by_label("Steering")
    slider.fill("0")
    slider.fill("2")
    slider.fill("3")
    slider.fill("0")
    assert arrived(page, held, 3)
    too_much = {"status": 400, "json": {"error": {"message": "too much"}}}
    for route, answer in zip(held, (COST, COST, too_much), strict=True):
        with page.expect_response("**/v1/lens"):
            route.fulfill(**answer)
    expect(note(page)).to_have_text("Too much.")
    next_frame(page)
    expect(section(page, STEERING)).to_contain_text("At zero the model is as it is.")


def test_what_leaving_out_tokens_does_is_not_drawn_once_another_token_was_chosen(page):
    look_inside(page, "the cat")
    held = hold(page, "**/v1/lens")
    section(page, WITHOUT).get_by_role("button").click()
    assert arrived(page, held, 1)
    page.route("**/v1/lens", lambda route: route.continue_())
    page.get_by_role("button", name="Previous token").click()
    expect(note(page)).to_contain_text("Explained: “t”.")
    page.get_by_role("button", name="Next token").click()
    expect(note(page)).to_contain_text("which comes next")
    marks = drawn(page)
    n_others = held[0].request.post_data_json["position"]
    with page.expect_response("**/v1/lens"):
        held[0].fulfill(json={"without": {"effect": [5, *[0] * n_others]}})
    assert drawn(page) == marks
