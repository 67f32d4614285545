"""Take the page's picture: `python docs/screenshot.py MODEL` runs an example on a model and writes docs/page.png."""

import queue
import shutil
import sys
import threading
from pathlib import Path

from playwright.sync_api import sync_playwright

from bluejay import load
from bluejay.serve.app import serve

PICTURE = Path(__file__).parent / "page.png"
SIZE = {"width": 1280, "height": 720}
OFFLINE = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")


def main() -> None:
    """Serve, run, photograph."""
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/screenshot.py MODEL")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        sys.exit("error: no Chromium here; `apt-get install chromium` brings one")
    try:
        model = load(sys.argv[1])
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    urls: queue.Queue[str] = queue.Queue()
    threading.Thread(target=serve, args=(model, "127.0.0.1", 0, urls.put), daemon=True).start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[*OFFLINE, "--disable-component-update"])
        page = browser.new_page(viewport=SIZE)
        page.goto(urls.get(timeout=30))
        page.get_by_role("button", name="A class for a car").click()
        page.get_by_text("More", exact=True).click()
        page.get_by_label("Seed").fill("1")
        page.get_by_text("More", exact=True).click()
        page.get_by_label("Length").fill("64")  # so that the prompt stays in view
        page.get_by_role("button", name="Run", exact=True).click()
        page.get_by_text("tokens/s").first.wait_for(timeout=300_000)
        page.mouse.move(0, 0)
        page.wait_for_timeout(300)  # until the button that the mouse leaves has its colour back
        page.screenshot(path=PICTURE)
        browser.close()
    print(PICTURE)


if __name__ == "__main__":
    main()
