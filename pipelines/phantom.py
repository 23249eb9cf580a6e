"""Write the phantom corpus: synthetic chest X-rays on disk in NIH ChestX-ray14's own form.

Features: parallel over Ray tasks; the same settings give the same bytes; a finished corpus is found again.

Raises UserError: settings out of range, or a folder that holds something else.
"""

import hashlib
import json
import shutil
import time
from pathlib import Path

import cv2
import ray

from chestai.cli.console import Screen
from chestai.cli.main import stage_command
from chestai.cli.summary import Summary
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.phantom import Box, PhantomImage, plan, write_image, write_tables
from pipelines.cluster import ray_cluster

MARK = "phantom.json"  # written first without `done`, and last with it
CHUNK = 25


def run(config: Config, screen: Screen) -> Summary:
    """Write the corpus, or find that it is there."""
    started = time.monotonic()
    settings = config.phantom
    root = Path(settings.root).expanduser().resolve()
    images = plan(settings.count, settings.size, settings.seed)
    wanted = {"count": settings.count, "size": settings.size, "seed": settings.seed, "plan": _digest(images)}
    if _mark(root) == {**wanted, "done": True} and not config.force:
        return _summary(config, started, 0, root, "already written")
    _clear(root)
    root.mkdir(parents=True, exist_ok=True)
    (root / MARK).write_text(json.dumps({**wanted, "done": False}))
    with ray_cluster(config.cluster), screen.progress("phantom", len(images), "images") as progress:
        boxes: dict[str, dict[str, Box]] = {}
        pending = [_write.remote(images[at : at + CHUNK], str(root)) for at in range(0, len(images), CHUNK)]
        while pending:
            ready, pending = ray.wait(pending)
            boxes |= ray.get(ready[0])
            progress.update(len(boxes))
    write_tables(root, images, boxes)
    (root / MARK).write_text(json.dumps({**wanted, "done": True}))
    return _summary(config, started, len(images), root, f"synthetic, {settings.size} px, seed {settings.seed}")


@ray.remote(num_cpus=1)
def _write(images: list[PhantomImage], root: str) -> dict[str, dict[str, Box]]:
    cv2.setNumThreads(1)
    return {image.image_id: write_image(image, root) for image in images}


def _digest(images: list[PhantomImage]) -> str:
    """The plan's content: a new version of the generator that plans otherwise does not reuse an old corpus."""
    return hashlib.sha256(repr(images).encode()).hexdigest()[:12]


def _mark(root: Path) -> dict[str, object] | None:
    try:
        return dict(json.loads((root / MARK).read_text()))
    except (OSError, ValueError):
        return None


def _clear(root: Path) -> None:
    """Remove an older corpus of ours; never touch a folder that bears no mark."""
    if not root.exists() or not any(root.iterdir()):
        return
    if not (root / MARK).exists():
        raise UserError(f"phantom.root={root} holds files that are no phantom corpus: name another folder")
    shutil.rmtree(root)


def _summary(config: Config, started: float, rows: int, root: Path, headline: str) -> Summary:
    summary = Summary(
        "phantom", rows, "images", time.monotonic() - started, {"headline": headline, "folder": str(root)}
    )
    summary.save(Lake(config.lake))
    return summary


if __name__ == "__main__":
    stage_command("pipelines.phantom", run)
