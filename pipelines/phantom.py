"""Write the phantom corpus: synthetic chest X-rays in the form of NIH ChestX-ray14.

Ray tasks write it in parallel. The same settings give the same bytes, and a finished corpus is not written again.

Raises `UserError` for settings out of range, or a folder that holds something else.
"""

import hashlib
import json
import shutil
import time
from pathlib import Path

import cv2
import ray

from chestai.cli.console import Screen
from chestai.cli.main import run_stage_command
from chestai.cli.summary import Summary
from chestai.config.schema import Config
from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.phantom import Box, PhantomImage, plan, write_image, write_tables
from pipelines.cluster import ray_cluster

MARKER = "phantom.json"  # written first with done=false, and last with done=true
IMAGES_PER_TASK = 25


def run(config: Config, screen: Screen) -> Summary:
    """Write the corpus unless it exists."""
    started = time.monotonic()
    settings = config.phantom
    root = Path(settings.root).expanduser().resolve()
    images = plan(settings.count, settings.size, settings.seed)
    settings_mark = {"count": settings.count, "size": settings.size, "seed": settings.seed, "plan": _hash_plan(images)}
    if _read_marker(root) == {**settings_mark, "done": True} and not config.force:
        return _summarize(config, started, 0, root, "already written")
    _remove_corpus(root)
    root.mkdir(parents=True, exist_ok=True)
    (root / MARKER).write_text(json.dumps({**settings_mark, "done": False}))
    with ray_cluster(config.cluster), screen.progress("phantom", len(images), "images") as progress:
        boxes: dict[str, dict[str, Box]] = {}
        starts = range(0, len(images), IMAGES_PER_TASK)
        pending = [_write_images.remote(images[at : at + IMAGES_PER_TASK], str(root)) for at in starts]
        while pending:
            ready, pending = ray.wait(pending)
            boxes |= ray.get(ready[0])
            progress.update(len(boxes))
    write_tables(root, images, boxes)
    (root / MARKER).write_text(json.dumps({**settings_mark, "done": True}))
    return _summarize(config, started, len(images), root, f"synthetic, {settings.size} px, seed {settings.seed}")


@ray.remote(num_cpus=1)
def _write_images(images: list[PhantomImage], root: str) -> dict[str, dict[str, Box]]:
    cv2.setNumThreads(1)
    return {image.image_id: write_image(image, root) for image in images}


def _hash_plan(images: list[PhantomImage]) -> str:
    """Hash the plan: a generator that plans other images does not reuse an old corpus."""
    return hashlib.sha256(repr(images).encode()).hexdigest()[:12]


def _read_marker(root: Path) -> dict[str, object] | None:
    try:
        return dict(json.loads((root / MARKER).read_text()))
    except (OSError, ValueError):
        return None


def _remove_corpus(root: Path) -> None:
    """Remove an older phantom corpus. A folder without the marker is never touched."""
    if not root.exists() or not any(root.iterdir()):
        return
    if not (root / MARKER).exists():
        raise UserError(f"phantom.root={root} holds files that are not a phantom corpus: name another folder")
    shutil.rmtree(root)


def _summarize(config: Config, started: float, rows: int, root: Path, headline: str) -> Summary:
    summary = Summary(
        "phantom", rows, "images", time.monotonic() - started, {"headline": headline, "folder": str(root)}
    )
    summary.save(Lake(config.lake))
    return summary


if __name__ == "__main__":
    run_stage_command("pipelines.phantom", run)
