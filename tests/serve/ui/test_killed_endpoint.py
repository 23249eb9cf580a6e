"""An endpoint that is killed while a reader works: every verdict arrives once, and the page says that it waits."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route
from sqlalchemy import select

from serve.db.database import Database
from serve.db.models import ReviewRow
from tests.serve.support.killable import KillableEndpoint
from tests.serve.support.processes import poll
from tests.serve.ui.site import Desk, add_readers
from tests.serve.ui.test_review import wait_for_study
from tests.support.models import FINDINGS, image

MOMENTS = {"as it arrives": 0.0, "while it is written": 0.01}  # seconds from the request to the end of the process
STUDIES = len(MOMENTS) + 3


@pytest.fixture
def endpoint(database: Database, tmp_path: Path) -> Iterator[KillableEndpoint]:
    url = database.url.render_as_string(False)
    endpoint = KillableEndpoint(tmp_path, "auth.required=true", "state.keep_images=true", f"state.url={url}")
    endpoint.start()
    yield endpoint
    endpoint.kill()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite"])
def test_every_verdict_arrives_once(browser: Browser, database: Database, endpoint: KillableEndpoint) -> None:
    keys = add_readers(database)
    ids = [upload(endpoint, keys["rita"], image(20 + number)) for number in range(STUDIES)]
    page = Desk(browser, endpoint.url, keys).open()
    poll(lambda: page.locator(".grid-body [role=row]").count() == STUDIES)
    page.keyboard.press("Enter")
    opened = wait_for_study(page)

    def lose_the_answer(route: Route) -> None:
        route.fetch()
        endpoint.kill()
        route.abort()

    def kill_in(seconds: float) -> Callable[[Route], None]:
        def handle(route: Route) -> None:
            Thread(target=endpoint.kill_in, args=[seconds]).start()
            route.continue_()

        return handle

    for handle in (lose_the_answer, *map(kill_in, MOMENTS.values())):
        prepare(page, opened)
        page.route("**/reviews", handle, times=1)
        opened = read(page, endpoint, opened)
    prepare(page, opened)
    endpoint.kill()
    opened = read(page, endpoint, opened)
    prepare(page, opened)
    page.keyboard.press("Enter")
    poll(lambda: "/ui/studies/" not in page.url and page.inner_text(".outbox") == "Saved")
    page.context.close()
    with database.read_session() as session:
        found = Counter(session.execute(select(ReviewRow.image_id, ReviewRow.finding)).tuples())
    assert found == {(image_id, finding): 1 for image_id in ids for finding in FINDINGS}


def upload(endpoint: KillableEndpoint, key: str, film: bytes) -> str:
    headers = {"X-API-Key": key, "content-type": "application/octet-stream"}
    reply = httpx.post(f"{endpoint.url}/infer", content=film, headers=headers, timeout=60)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["image_id"])


def prepare(page: Page, opened: str) -> None:
    """Waits until the study can be read and nothing is on its way, such as the study after it."""
    poll(lambda: page.locator(".findings tbody tr").count() == len(FINDINGS))
    assert opened in page.url
    page.wait_for_timeout(500)


def read(page: Page, endpoint: KillableEndpoint, opened: str) -> str:
    """Agrees with all while the endpoint dies, and starts it again; returns the next study."""
    page.keyboard.press("Enter")
    poll(lambda: "1 verdict waiting" in page.inner_text(".outbox"))
    assert "the endpoint does not answer" in page.inner_text(".outbox")
    endpoint.start()
    poll(lambda: page.inner_text(".outbox") == "Saved")
    again = page.get_by_role("button", name="Try again")
    if again.count():  # the film after it could not be fetched before
        again.click()
    return wait_for_study(page, opened)
