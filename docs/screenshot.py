"""Take screenshots of the page on a desktop and on a phone: `python docs/screenshot.py MODEL [NAME...]` writes
docs/page*.png, all of them or those named."""

import queue
import re
import shutil
import sys
import threading
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from bluejay import load
from bluejay.serve.server import serve
from bluejay.serve.settings import ServeSettings

DOCS = Path(__file__).parent
DESKTOP = {"viewport": {"width": 1280, "height": 720}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
OFFLINE = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")


def main() -> None:
    """Serve the model, run it on the page and take a screenshot of each screen."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python docs/screenshot.py MODEL [NAME...]")
    if unknown := set(sys.argv[2:]) - SCREENS.keys():
        sys.exit(f"error: there is no screen {', '.join(unknown)}; there are {', '.join(SCREENS)}")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        sys.exit("error: no Chromium here; `apt-get install chromium` brings one")
    try:
        model = load(sys.argv[1])
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    urls: queue.Queue[str] = queue.Queue()
    threading.Thread(target=serve, args=(model, ServeSettings(port=0), urls.put), daemon=True).start()
    url = urls.get(timeout=30)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[*OFFLINE, "--disable-component-update"])
        for name in sys.argv[2:] or SCREENS:
            scheme, screen, show = SCREENS[name]
            page = open_page(browser, url, scheme, screen)
            show(page)
            take_screenshot(page, name)
        browser.close()


def open_page(browser: Browser, url: str, scheme: str, screen: dict) -> Page:
    """The page in a new browser profile, with a seed that gives the same text every time."""
    page = browser.new_page(color_scheme=scheme, **screen)  # type: ignore[arg-type]
    page.goto(url)
    page.get_by_role("tab", name="More").click()
    page.get_by_label("Seed").fill("3")
    return page


def continue_code(page: Page) -> None:
    """Continue an example of code; all of it stays in view."""
    page.get_by_role("tab", name="Examples").click()
    page.get_by_role("button", name="Fibonacci").click()
    page.get_by_label("Length").fill("64")
    run(page)


def show_alternatives(page: Page) -> None:
    """Continue prose, colour it by probability and open the alternatives to an unlikely word."""
    page.get_by_role("tab", name="Examples").click()
    page.get_by_role("button", name="The last paragraph").click()
    page.get_by_label("Length").fill("64")
    run(page)
    page.get_by_role("button", name="Probabilities").click()
    page.locator("#probabilities[aria-pressed=true]").wait_for()
    page.locator("#text").evaluate(
        """text => {
            const unlikely = [...CSS.highlights.get("p4")].map(range => range.startOffset).sort((a, b) => a - b);
            const after = text.value.indexOf("do, but") + 40;
            const at = unlikely.find(at => at > after) ?? unlikely[0];
            text.setSelectionRange(at, at);
            text.focus();
        }"""
    )
    page.keyboard.press("ArrowRight")


def show_sources(page: Page) -> None:
    """Continue code and open the documents of a quote in it; the model's corpus must have an index."""
    continue_code(page)
    page.get_by_role("button", name="Sources").click()
    page.get_by_text("% quoted").wait_for()
    page.get_by_role("button", name="Next quote").click()
    page.locator("#quote mark").first.wait_for()


def look_inside(page: Page) -> None:
    """Look at what the model made of a text in which something stood before."""
    page.get_by_label("Text. The model").fill(
        "The keeper of the lighthouse was called Marianne Holt. Every evening she climbed the stairs and lit the lamp. "
        "One night a ship came too near, and the sailors shouted the name of Marianne"
    )
    page.get_by_role("tab", name="Inside").click()
    page.get_by_role("button", name="Look inside").click()
    page.get_by_role("heading", name="Attention").wait_for(timeout=60_000)


def generate_samples(page: Page) -> None:
    """Generate three samples side by side."""
    page.get_by_role("spinbutton", name="Samples").fill("3")
    page.get_by_role("tab", name="Examples").click()
    page.get_by_role("button", name="The last paragraph").click()
    page.get_by_label("Length").fill("72")
    run(page)


def run(page: Page) -> None:
    """Run and wait for the end."""
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text(re.compile("tokens/s")).first.wait_for(timeout=300_000)


def take_screenshot(page: Page, name: str) -> None:
    """Write docs/NAME.png and close the page."""
    page.mouse.move(0, 0)
    page.wait_for_timeout(300)  # a button that the mouse leaves fades to its normal colour
    path = DOCS / f"{name}.png"
    page.screenshot(path=path)
    page.close()
    print(path)


SCREENS = {
    "page": ("light", DESKTOP, show_alternatives),
    "page-dark": ("dark", DESKTOP, show_alternatives),
    "page-phone": ("light", PHONE, show_alternatives),
    "page-samples": ("light", DESKTOP, generate_samples),
    "page-phone-dark": ("dark", PHONE, continue_code),
    "page-sources": ("light", DESKTOP, show_sources),
    "page-phone-sources": ("dark", PHONE, show_sources),
    "page-inside": ("light", DESKTOP, look_inside),
    "page-phone-inside": ("dark", PHONE, look_inside),
}
"""Name of a picture -> the theme, the screen, and what is done on it."""

if __name__ == "__main__":
    main()
