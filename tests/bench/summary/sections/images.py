"""Files become pixels: decoding, ETL, pixel cache."""

from functools import partial

from tests.bench.summary.entry import Entry, Figures
from tests.bench.summary.results import Results
from tests.bench.summary.words import TIMES, count, number, percent, times

SHOWN_SIZE = 224  # of those that storage was measured with


def read_decode(size: int, results: Results) -> Figures:
    at_size = results["decode"].where(size=size)
    ours, opencv = at_size.where(way="ours"), at_size.where(way="ours without the kernel")
    rate, limit = ours.median("images_per_s"), at_size.where(way="inflating alone").median("images_per_s")
    by_opencv = times(rate / opencv.median("images_per_s"), "OpenCV, which decodes without the kernel")
    return Figures(
        f"{number(rate)} images/s",
        f"{times(ours.median('times_reference'), 'Pillow RGB + torchvision')}; {by_opencv}",
        times(rate / limit, f"inflating the file alone ({number(limit)} images/s)"),
    )


def read_stage(stage: str, engine: str, results: Results) -> Figures:
    """A stage with its engine, in CPU time and in wall time, beside the calls of one worker in a loop."""
    table = results["decode_stages"]
    whole, wall = table.where(stage=f"{stage}, {engine}"), table.where(stage=f"{stage}, {engine}, wall time")
    rate, bare = whole.median("images_per_s"), table.where(stage=f"{stage}, bare").median("images_per_s")
    return Figures(
        f"{number(rate)} images/s of CPU time, {number(wall.median('images_per_s'))} images/s on all cores",
        times(whole.median("times_opencv"), "the same with OpenCV alone"),
        times(rate / bare, f"its calls in a loop without engine ({number(bare)} images/s)"),
    )


def read_etl_rows(results: Results) -> Figures:
    table = results["etl_rows"]
    once, most = table.where(factor=1), table.most("factor")
    factor, seconds = most.median("factor"), most.median("seconds")
    return Figures(
        f"{count(once.median('rows'))} rows in {number(once.median('seconds'))} s",
        limit=f"{count(factor)} {TIMES} the rows take {number(seconds)} s: "
        f"{times(most.median('seconds_over_linear'), 'linear growth')}",
    )


def read_etl_images(results: Results) -> Figures:
    table = results["etl_images"]
    few, many = (table.where(what="Spark").least("images"), table.where(what="Spark").most("images"))
    rate = many.median("images_per_s")
    alone, together = (
        table.where(what=f"bare loop, {where}").median("images_per_s") for where in ("one process", "every core")
    )
    growth = f"{number(many.median('peak_mib') / few.median('peak_mib'))} {TIMES} the memory"
    corpora = f"{count(many.median('images'))} images as for {count(few.median('images'))}"
    return Figures(
        f"{number(rate)} images/s; {growth} for {corpora}",
        times(rate / alone, "a bare loop of the same calls on one core"),
        times(rate / together, f"such loops on every core ({number(together)} images/s)"),
    )


def read_cache_build(results: Results) -> Figures:
    rate = results["feed"].where(what="cache build").median("images_per_s")
    alone, together = (
        results["feed"].where(what=f"bare decode and resize, {where}").median("images_per_s")
        for where in ("one process", "every core")
    )
    return Figures(
        f"{number(rate)} images/s",
        times(rate / alone, "a bare loop on one core"),
        times(rate / together, f"such loops on every core ({number(together)} images/s)"),
    )


def read_cache(results: Results) -> Figures:
    table = results["feed"]
    ours = table.where(what="feed from cache")
    rate, plain = (
        ours.median("images_per_s"),
        table.where(what="DataLoader from cache").median("images_per_s"),
    )
    files = table.where(what="feed without cache").median("images_per_s")
    limit = results["storage"].where(size=SHOWN_SIZE, way="Parquet, row groups of 256").median("images_per_s")
    return Figures(
        f"{number(rate)} images/s, first batch after {number(ours.median('first_batch_s'))} s",
        f"{times(rate / plain, 'a plain DataLoader')}; {times(rate / files, 'the files')}",
        times(rate / limit, f"copying the pixels alone, without shuffling, on one core ({number(limit)} images/s)"),
    )


def read_files(results: Results) -> Figures:
    table = results["feed"]
    rate = table.where(what="feed without cache").median("images_per_s")
    limit = table.where(what="bare decode and resize, every core").median("images_per_s")
    return Figures(
        f"{number(rate)} images/s",
        times(rate / table.where(what="ray.data.read_images").median("images_per_s"), "`ray.data.read_images`"),
        times(rate / limit, f"bare loops on every core ({number(limit)} images/s)"),
    )


def read_storage(results: Results) -> Figures:
    table = results["storage"].where(size=SHOWN_SIZE)
    rate, tensors, limit = (
        table.where(way=way).median("images_per_s")
        for way in ("Parquet, row groups of 256", "Ray tensor column in Parquet", "Arrow IPC, memory-mapped")
    )
    return Figures(
        f"{number(rate)} images/s",
        times(rate / tensors, "Ray's tensor column in Parquet"),
        times(rate / limit, f"copying from mapped memory ({number(limit)} images/s)"),
    )


def read_checks(results: Results) -> Figures:
    table = results["checks"]
    formats = table.texts("format")
    milliseconds = [f"{name}: {table.where(format=name).median('check_ms'):.3f} ms" for name in formats]
    shares = [percent(table.where(format=name).median("share")) for name in formats]
    return Figures("; ".join(milliseconds), limit=f"{', '.join(shares)} of decoding the file")


ENTRIES = (
    *(
        Entry(f"Decoding a grey PNG to {size} px, CPU time", "decode", partial(read_decode, size))
        for size in (224, 320, 512)
    ),
    Entry("Pixel cache, building, with Ray", "decode_stages", partial(read_stage, "cache build", "with Ray")),
    Entry("ETL, inspecting files, with Spark", "decode_stages", partial(read_stage, "ETL inspection", "with Spark")),
    Entry("ETL of NIH's label table without images, start of Ray and Spark included", "etl_rows", read_etl_rows),
    Entry("ETL of PNG files", "etl_images", read_etl_images),
    Entry("Structure checks of a file", "checks", read_checks),
    Entry("Pixel cache, building", "feed", read_cache_build),
    Entry("Pixel cache, reading for training", "feed", read_cache),
    Entry("Pixel cache, its format, reading", "storage", read_storage),
    Entry("Training feed without a cache", "feed", read_files),
)
