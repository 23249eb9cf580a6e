"""Forward passes, heatmaps, and scoring of folders."""

from functools import partial

from tests.bench.summary.entry import Entry, Figures
from tests.bench.summary.results import Results, Table
from tests.bench.summary.words import TIMES, at_least, count, number, times

OF_ROOM = 0.88  # the target of the project
BATCH = 16  # of those that runtimes and heatmaps were measured with


def read_runtime(precision: str, results: Results) -> Figures:
    table = results["runtime"].where(batch=BATCH)
    ours, torch = table.where(what=f"openvino {precision}"), table.where(what="torch bf16, channels_last")
    rate, fastest = ours.median("images_per_cpu_s"), torch.median("images_per_cpu_s")
    eager = times(ours.median("times_as_fast_by_cpu"), "eager torch fp32")
    return Figures(f"{number(rate)} images/s", f"{eager}; {times(rate / fastest, 'torch in bf16, channels last')}")


def read_gradcam(results: Results) -> Figures:
    table = results["gradcam"].where(batch=BATCH)
    ours, package = (
        table.where(what=what) for what in ("logits and 14 maps, closed form", "pytorch-grad-cam, one map")
    )
    return Figures(
        f"{number(ours.median('cpu_ms') / BATCH)} ms an image",
        f"`pytorch-grad-cam` takes {number(package.median('cpu_times_reference'))} forward passes for one map",
        times(ours.median("cpu_times_reference"), "a forward pass without heatmaps"),
    )


def find_scoring_rate(scored: Table) -> float:
    """Images per second once scoring has started: from the difference between the longest and the shortest run."""
    few, many = scored.least("images"), scored.most("images")
    images, seconds = (many.median(column) - few.median(column) for column in ("images", "total_s"))
    return images / seconds


def read_scoring(precision: str, results: Results) -> Figures:
    table = results["score"]
    scored = table.where(what=f"scored, {precision}")
    rate, many = find_scoring_rate(scored), scored.most("images")
    decode, forward, plain = (
        table.where(what=what).median("images_per_s")
        for what in ("bare decode and resize, every core", f"bare forward, {precision}", "plain script")
    )
    limit = 1 / (1 / decode + 1 / forward)
    memory = f"{number(many.median('peak_mib') / 1024)} GiB for {count(many.median('images'))} images"
    return Figures(
        f"{number(rate)} images/s; {memory}",
        times(rate / plain, "a plain script (Pillow, torchvision, eager fp32, DataLoader)"),
        times(rate / limit, f"what decoding and forward pass leave room for ({number(limit)} images/s); ")
        + at_least(rate / limit, OF_ROOM, TIMES),
    )


ENTRIES = (
    *(
        Entry(f"OpenVINO {precision}, batches of {BATCH}, CPU time", "runtime", partial(read_runtime, precision))
        for precision in ("bf16", "fp32")
    ),
    Entry(f"Logits and Grad-CAM of all 14 findings, batches of {BATCH}, CPU time", "gradcam", read_gradcam),
    *(
        Entry(f"Scoring a folder, {precision}", "score", partial(read_scoring, precision))
        for precision in ("int8", "bf16", "fp32")
    ),
)
