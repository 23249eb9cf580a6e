"""docs/benchmarks.md: made from results alone, and up to date."""

from pathlib import Path

import pytest

from tests.bench.record import RESULTS
from tests.bench.summary.__main__ import PAGE
from tests.bench.summary.render import SECTIONS, make_page
from tests.bench.summary.results import MissingError

ABOUT = "date,cpu,cores,python,torch"
HERE = "2026-11-27,AMD EPYC,2,3.11.7,2.15.0"


def write(folder: Path, name: str, head: str, *rows: str) -> None:
    lines = [f"{head},{ABOUT}", *(f"{row},{HERE}" for row in rows)]
    (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")


def find_row(text: str, what: str) -> list[str]:
    """The cells of a row, after the first."""
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {what} |"))
    return line.strip("| ").split(" | ")[1:]


def test_the_page_is_what_the_results_say() -> None:
    assert PAGE.read_text() == make_page(RESULTS)[0], "run `python -m tests.bench.summary`"


def test_every_entry_has_a_script() -> None:
    for entry in (entry for entries in SECTIONS.values() for entry in entries):
        assert (RESULTS.parent / f"{entry.script}.py").exists()


def test_a_target_is_met_or_missed(tmp_path: Path) -> None:
    runs = ('"serve, first answer",0,7', '"serve, first answer",1,9.5', '"serve, first answer",2,9')
    write(tmp_path, "start", "what,run,seconds", "score ten images,0,5.5", *runs)
    text, _ = make_page(tmp_path)
    assert find_row(text, "Start: score ten images") == ["5.50 s", "–", "at most 6 s: met", "`start`, 2026-11-27"]  # noqa: RUF001
    assert find_row(text, "Start: serve, first answer")[2] == "at most 8 s: **missed**"


def test_what_is_missing_is_left_out_and_named(tmp_path: Path) -> None:
    write(tmp_path, "start", "what,run,seconds", "score ten images,0,5.5")
    text, left_out = make_page(tmp_path)
    assert "Start: serve, first answer: start.csv has no row where what is serve, first answer" in left_out
    assert "Scoring a folder, bf16: there is no score.csv" in left_out
    assert "Scoring larger corpora: there is no score.csv" in left_out
    assert "Start: serve" not in text
    assert "## Readers' page" not in text
    assert "on paper" not in text


def test_a_column_that_is_missing_leaves_its_row_out(tmp_path: Path) -> None:
    write(tmp_path, "start", "what,run,seconds", "score ten images,0,5.5")
    write(tmp_path, "report", "predictions,images,minutes", "test alone,22433,1")
    assert (
        "Evaluation report with intervals, start included: report.csv has nothing in the column seconds"
        in make_page(tmp_path)[1]
    )


def test_no_results_at_all_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingError):
        make_page(tmp_path)


def test_scoring_stands_beside_its_parts_and_a_plain_script(tmp_path: Path) -> None:
    write(
        tmp_path,
        "score",
        "what,images,images_per_s,start_s,total_s,peak_mib",
        '"bare decode and resize, every core",300,200,0,0,0',
        "plain script,320,10,0,0,0",
        '"bare forward, bf16",384,50,0,0,0',
        '"bare forward, fp32",384,25,0,0,0',
        '"scored, bf16",100,5,15,20,1024',
        '"scored, bf16",1100,20,15,70,2048',
        '"scored, fp32",100,5,16,25,1024',
        '"scored, fp32",1100,20,16,125,2048',
    )
    text, _ = make_page(tmp_path)
    result, peer, limit, _ = find_row(text, "Scoring a folder, bf16")
    assert result == "20.0 images/s; 2.00 GiB for 1,100 images"  # 1,000 images in 50 s
    assert peer.startswith("2.00 \u00d7 a plain script")
    assert limit == (
        "0.50 \u00d7 what decoding and forward pass leave room for (40.0 images/s); at least 0.88 \u00d7: **missed**"
    )
    assert "From 10.0 images/s a core in bf16." in text
    assert "takes 15.0 to 16.0 s to start" in text
    assert "| 1 million | 13.9 h | 26.0 min | 2.60 min |" in text
    assert "| 112,120 | 1.56 h | 2.92 min | 17.5 s |" in text


def test_a_stage_stands_beside_opencv_and_its_bare_calls(tmp_path: Path) -> None:
    write(
        tmp_path,
        "decode_stages",
        "stage,rounds,images_per_s,images_per_s_by_opencv,times_opencv,least_times_opencv",
        '"cache build, bare",3,250,100,2.5,2.4',
        '"cache build, with Ray",3,200,100,2,1.9',
        '"cache build, with Ray, wall time",3,380,190,2,1.9',
    )
    assert find_row(make_page(tmp_path)[0], "Pixel cache, building, with Ray")[:3] == [
        "200 images/s of CPU time, 380 images/s on all cores",
        "2.00 \u00d7 the same with OpenCV alone",
        "0.80 \u00d7 its calls in a loop without engine (250 images/s)",
    ]


def test_attacks_count_without_the_floods_that_they_stand_beside(tmp_path: Path) -> None:
    write(
        tmp_path,
        "hostile",
        "flood,responses,model_p50_ms,model_p99_ms,model_max_ms,memory_mib",
        "none,,5,30,80,900",
        "films,200: 9,200,800,900,9000",
        "bombs,422: 9,10,100,200,1024",
        "overlays,200: 9,20,400,500,2048",
    )
    result, peer, limit, _ = find_row(make_page(tmp_path)[0], "`GET /model` of another user during attacks")
    assert result == "p99 100 to 400 ms; server and decoders take at most 2.00 GiB"
    assert peer.startswith("at most 0.50 \u00d7")
    assert limit == "30.0 ms on a quiet machine"
