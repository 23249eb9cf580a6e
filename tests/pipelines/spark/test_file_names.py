"""Which file a label table means, without Spark."""

import re

import pytest

from pipelines.spark.sources.file_names import match_names


@pytest.mark.parametrize(
    ("named", "files", "keys", "guessed"),
    [
        (["a.png"], ["x/a.png", "y/a.png", "b.png"], ["a.png", "a.png", "b.png"], None),
        (["p/1/v.jpg", "q/1/v.jpg"], ["p/1/v.png", "s/q/1/v.png"], ["p/1/v.jpg", "q/1/v.jpg"], "2 .* suffix differs"),
        (["a.jpg"], ["a.png", "x/a.png"], ["a.jpg", "a.jpg"], "2 .* suffix differs, such as a.png with a.jpg"),
        (["a.jpg"], ["a.png", "a.jpeg"], ["a.png", "a.jpeg"], None),
        (["a.jpg", "a.png"], ["a.png"], ["a.png"], None),
        (["A_1.PNG"], ["a_1.png"], ["A_1.PNG"], "case differs"),
        (["1", "2.0", "10"], ["00000001.dcm", "00000002.dcm", "x.dcm"], ["1", "2.0", "x.dcm"], "2 .* zeros before"),
        (["1", "01"], ["001.dcm"], ["001.dcm"], None),
        (["p1/img.dcm", "p2/img.dcm"], ["p1/img.dcm", "p2/img.dcm"], ["p1/img.dcm", "p2/img.dcm"], None),
        (["data/series/a.dcm"], ["series/a.dcm"], ["data/series/a.dcm"], "folder differs"),
        (["p1/img.dcm"], ["p2/img.dcm"], ["p2/img.dcm"], None),
        (["p1/s1/v1.jpg"], ["p2/s1/v1.png"], ["p2/s1/v1.png"], None),
    ],
)
def test_name_means_what_it_can_only_mean(
    named: list[str], files: list[str], keys: list[str], guessed: str | None
) -> None:
    matched = match_names(named, files, "labels.csv", "the names")
    assert matched.keys == keys
    if guessed is None:
        assert matched.guesses == ()
    else:
        (guess,) = matched.guesses
        assert re.search(guessed, guess.line)


def test_mismatch_is_explained_by_the_nearest_name() -> None:
    matched = match_names(["00000001_001.png", "other"], ["00000001_000.png"], "labels.csv", "")
    assert matched.explain_mismatch(["00000001_001.png", "other"], "labels.csv") == (
        "labels.csv names none of the 1 image files: nearest to 00000001_000.png is 00000001_001.png"
    )
    assert matched.explain_mismatch(["00000001_000.png"], "labels.csv") is None
