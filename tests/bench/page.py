"""How long a reader waits: the readers' page in headless Chromium without a GPU, over real HTTP.

    python -m tests.bench.page

Targets of the page: first contentful paint of the queue, cold, at most 500 ms; queue to the first film at most 1.5 s;
from a verdict to the next film, which was prefetched, at most 250 ms (median); window/level at least 30 frames/s; heap
and typed arrays of JavaScript at most 600 MB after 100 studies; 100,000 studies scroll as smoothly as 100.
"""

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from playwright.sync_api import Page, sync_playwright
from sqlalchemy import insert

from serve.db.models import ImageRow, PositiveRow, PredictionRow, WorklistRow
from tests.bench.record import record
from tests.serve.ui.site import Site, open_site, poll
from tests.support import dicom
from tests.support.browser import FLAGS, NAMES

ROUNDS = 3
STUDIES = 101
CORPUS = 100_000
DRAG_SECONDS = 3.0
SHOWN = ".film-canvas[data-shown=true]"
PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"
COUNT = """selector => {
    window.frames_seen = 0;
    document.querySelector(selector).addEventListener('CORNERSTONE_IMAGE_RENDERED', () => window.frames_seen++);
}"""
# Milliseconds between frames while the list scrolls by a row a frame.
SCROLL = """async () => {
    const list = document.querySelector('.grid-body'), gaps = [];
    let scroller = list;
    while (scroller.scrollHeight <= scroller.clientHeight) scroller = scroller.parentElement;
    let before = performance.now();
    for (let frame = 0; frame < 120; frame++) {
        scroller.scrollTop += 30;
        const now = await new Promise(requestAnimationFrame);
        gaps.push(now - before);
        before = now;
    }
    return gaps.slice(1);
}"""


def film(number: int, height: int = 1024, width: int = 1024, bits: int = 8) -> np.ndarray:
    """A smooth grey picture with noise, so that its file is as long as a radiograph's."""
    random = np.random.default_rng(number)
    soft = cv2.resize(random.random((12, 12), np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    noisy = soft * 0.8 + random.normal(0, 0.02, (height, width))
    return (np.clip(noisy, 0, 1) * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


@contextmanager
def site() -> Iterator[Site]:
    binary = next(filter(None, map(shutil.which, NAMES)), None)
    if binary is None:
        sys.exit(f"no browser: none of {', '.join(NAMES)} is on PATH")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        precise = "--enable-precise-memory-info"
        browser = playwright.chromium.launch(executable_path=binary, args=[*FLAGS, precise])
        with open_site(browser, Path(folder)) as opened:
            yield opened


def wait_for_film(page: Page, but: str = "") -> str:
    """Waits for the film of another study; returns its image ID. Polls often: these times are the result."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        image_id = page.url.split("?")[0].rsplit("/", 1)[-1]
        if "/ui/studies/" in page.url and image_id != but and page.locator(SHOWN).count():
            return image_id
        time.sleep(0.002)
    raise TimeoutError("no film within 30 s")


def timed(action: Callable[[], Any]) -> float:
    """Milliseconds."""
    started = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - started)


def measure_paint(opened: Site) -> float:
    """First contentful paint of a signed-in reader's queue in a browser without a cache, ms after the address."""
    page = opened.open()
    state = page.context.storage_state()
    page.context.close()
    cold = opened.browser.new_context(viewport={"width": 1440, "height": 900}, storage_state=state).new_page()
    cold.goto(f"{opened.url}/ui/")
    poll(lambda: cold.locator(".grid-body [role=row]").count(), "the queue")
    paint = float(cold.evaluate(PAINT))
    cold.context.close()
    return paint


def measure_first_film(opened: Site) -> float:
    """From Enter on the queue to the film, the viewer not loaded before, ms."""
    page = opened.open()
    poll(lambda: page.locator(".grid-body [role=row]").count(), "the queue")

    def enter() -> None:
        page.keyboard.press("Enter")
        wait_for_film(page)

    taken = timed(enter)
    page.context.close()
    return taken


def measure_verdicts(opened: Site) -> dict[str, float]:
    """Reads all studies; returns the median time to the next film, and memory at the end."""
    page = opened.open()
    poll(lambda: page.locator(".grid-body [role=row]").count(), "the queue")
    page.keyboard.press("Enter")
    image_id = wait_for_film(page)
    times = []
    for _ in range(STUDIES - 1):
        time.sleep(0.4)  # a reader looks at it; meanwhile the next film is fetched

        def give(before: str = image_id) -> str:
            page.keyboard.press("Enter")
            return wait_for_film(page, before)

        started = time.perf_counter()
        image_id = give()
        times.append(1000 * (time.perf_counter() - started))
    client = page.context.new_cdp_session(page)
    client.send("HeapProfiler.collectGarbage")
    heap = client.send("Runtime.getHeapUsage")
    page.context.close()
    used = (heap["usedSize"] + heap.get("backingStorageSize", 0)) / 2**20
    return {"verdict to next film, median ms": statistics.median(times), "heap after 100 studies, MB": used}


def measure_drag(opened: Site, image_id: str) -> float:
    """Frames a second in which window and level follow a mouse that moves all the time."""
    page = opened.open(f"/ui/studies/{image_id}")
    wait_for_film(page)
    page.evaluate(COUNT, SHOWN)
    page.mouse.move(500, 450)
    page.mouse.down()
    started, step = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < DRAG_SECONDS:
        step += 1
        page.mouse.move(500 + 150 * np.sin(step / 9), 450 + 100 * np.cos(step / 7))
    frames = page.evaluate("() => window.frames_seen")
    page.mouse.up()
    page.context.close()
    return float(frames / passed)


def measure_scroll(opened: Site) -> float:
    """Median frames a second while the queue scrolls."""
    page = opened.open()
    poll(lambda: page.locator(".grid-body [role=row]").count(), "the queue")
    gaps = page.evaluate(SCROLL)
    page.context.close()
    return 1000 / float(np.mean(gaps))


def fill(opened: Site, like: str, count: int) -> None:
    """Adds copies of a study to the worklist."""
    with opened.services.state.store.database.write_session() as session:
        rows = [
            session.get_one(kind, key)
            for kind, key in ((ImageRow, like), (PredictionRow, (like, 1)), (WorklistRow, like))
        ]
        contents = [{c.key: getattr(row, c.key) for c in type(row).__table__.columns} for row in rows]
        for start in range(0, count, 5000):
            ids = [f"{number:064x}" for number in range(start, min(start + 5000, count))]
            for row, content in zip(rows, contents, strict=True):
                session.execute(insert(type(row)), [content | {"image_id": image_id} for image_id in ids])
            session.execute(insert(PositiveRow), [{"image_id": image_id, "finding": "Mass"} for image_id in ids])


def main() -> None:
    results: dict[str, list[float]] = {}

    def note(what: str, value: float) -> None:
        results.setdefault(what, []).append(value)
        print(f"{what}: {value:.1f}", flush=True)

    with site() as opened:
        plain = opened.upload(png(film(0)))
        large = opened.upload(dicom.a_file(film(1, 2500, 2048, 12)))
        for _ in range(ROUNDS):
            note("window/level, PNG of 1024 x 1024, frames/s", measure_drag(opened, plain))
            note("window/level, DICOM of 2048 x 2500, frames/s", measure_drag(opened, large))
    with site() as opened:
        for number in range(STUDIES):
            opened.upload(png(film(number)), float(number), positives=("Mass",))
        for _ in range(ROUNDS):
            note("first contentful paint of the queue, cold, ms", measure_paint(opened))
            note("queue to first film, ms", measure_first_film(opened))
            note("scrolling 100 studies, frames/s", measure_scroll(opened))
        for what, value in measure_verdicts(opened).items():
            note(what, value)
        fill(opened, opened.upload(png(film(STUDIES))), CORPUS)
        for _ in range(ROUNDS):
            note("first contentful paint, 100,000 studies, ms", measure_paint(opened))
            note("scrolling 100,000 studies, frames/s", measure_scroll(opened))
    medians = {what: round(statistics.median(values), 1) for what, values in results.items()}
    rows = [{"what": what, "median": median, "rounds": len(results[what])} for what, median in medians.items()]
    print(record("page", rows))


if __name__ == "__main__":
    main()
