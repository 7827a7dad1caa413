"""Makes the pictures of the docs again, from the demo's output and the bundled model.

    make demo && .venv/bin/python -m docs.make_images [--demo demo] [--to docs/images]

Needs Chromium, as the tests of the viewer do. The README's picture comes from the model as it is now: read
its description in README.md again after a new model.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from pipeline.dataset.opening import open_dataset
from sspsam import SSPSAM, Segmenter
from sspsam.drawing.overlays import draw_overlay
from sspsam.images.decoding import decode_image
from sspsam.images.load_image import load_image
from tests.pipeline.view.conftest import launch, running

#: What the README shows: key of an example image, and its phrases.
README = {
    "scenes-00-005": ["both pigs", "a slice of pizza", "the dog"],
    "scenes-03-000": ["the basketball", "a penguin above the basketball"],
}


def readme_picture(output: Path) -> Image.Image:
    """The images of README side by side under their masks."""
    segmenter = Segmenter(SSPSAM.from_pretrained("tiny"))
    rows = {
        row["key"]: row
        for file in open_dataset(str(output)).files
        for table in open_dataset(str(output)).read_batches(file, ["key", "image_ref"])
        for row in table.to_pylist()
    }
    drawn = []
    for key, phrases in README.items():
        image = decode_image(load_image(rows[key]["image_ref"], {}))
        (masks,) = segmenter.segment([image], [phrases])
        drawn.append(draw_overlay(image, masks).resize((496, 496), Image.Resampling.LANCZOS))
    whole = Image.new("RGB", (1000, 496), "white")
    for place, picture in enumerate(drawn):
        whole.paste(picture, (place * 504, 0))
    return whole


def shot(page: Page, width: int) -> Image.Image:
    """What the page shows, `width` pixels wide, in 256 colours: a third of the bytes."""
    page.wait_for_function("!document.querySelector('#grid.loading')")
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1000)  # masks are drawn once their card is in view
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    return image.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2)


def screens(browser: Browser, url: str, report: Path, target: Path) -> None:
    """Screenshots of the viewer at `url` and of the report page."""
    page = browser.new_page(viewport={"width": 1375, "height": 860})
    page.goto(url)
    page.wait_for_selector("html[data-ready]")
    page.wait_for_selector("#grid .card")
    shot(page, 1100).save(target / "view-grid.png", optimize=True)
    page.locator("#grid .card").first.click()
    page.keyboard.press("ArrowDown")
    shot(page, 1100).save(target / "view-detail.png", optimize=True)
    page.close()
    phone = browser.new_page(viewport={"width": 390, "height": 844})
    phone.goto(url)
    phone.wait_for_selector("html[data-ready]")
    phone.locator("#grid .card").nth(1).click()
    shot(phone, 390).save(target / "view-phone.png", optimize=True)
    phone.goto(report.resolve().as_uri())
    phone.set_viewport_size({"width": 1300, "height": 949})
    shot(phone, 1000).save(target / "report.png", optimize=True)
    phone.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m docs.make_images")
    parser.add_argument(
        "--demo", type=Path, default=Path("demo"), help="what `make demo` wrote (%(default)s)"
    )
    parser.add_argument("--to", type=Path, default=Path(__file__).parent / "images")
    arguments = parser.parse_args()
    arguments.to.mkdir(parents=True, exist_ok=True)
    output = arguments.demo / "output"
    readme_picture(output).save(arguments.to / "readme.jpg", quality=85)
    with running(output) as url, sync_playwright() as playwright:
        browser = launch(playwright)
        screens(browser, url, arguments.demo / "report.html", arguments.to)
        browser.close()
    for path in sorted(arguments.to.iterdir()):
        print(f"{path}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
