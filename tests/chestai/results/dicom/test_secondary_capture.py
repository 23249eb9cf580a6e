"""The picture shows the positive findings on the film, and says what it is."""

import warnings

import cv2
import numpy as np
import pytest

from chestai.imaging.heatmap import blend, heatmap
from chestai.results.dicom import picture
from chestai.results.dicom.secondary_capture import build_picture
from chestai.results.dicom.uids import instance_uid
from tests.chestai.results.dicom.films import (
    DEVICE,
    evidence_of,
    film_header,
    grey_film,
    read_back,
    result_of,
    reviewed,
    with_positives,
    write,
)

HEADER = film_header()
RESULT = result_of(HEADER)
EVIDENCE = evidence_of(RESULT)
GREY = grey_film()


def test_picture_is_a_colour_image_of_the_study() -> None:
    capture = read_back(build_picture(RESULT, HEADER, GREY, EVIDENCE, DEVICE))
    assert capture.SOPInstanceUID == instance_uid("1.2.3.4", "chestai-densenet", 7, "sc")
    assert (capture.StudyInstanceUID, capture.PatientID, capture.PatientName) == ("1.2.3", "p1", "Müller^Jörg")
    assert (capture.BurnedInAnnotation, capture.Laterality) == ("YES", "")
    assert capture.PatientOrientation == ["L", "F"] and capture.ContentQualification == "RESEARCH"
    assert capture.DateOfSecondaryCapture == "20260102" and capture.TimeOfSecondaryCapture == "030405.678900"
    assert capture.pixel_array.dtype == np.uint8 and capture.pixel_array.shape[2] == 3


def test_panels_are_drawn_as_the_endpoint_draws_overlays() -> None:
    pixels = build_picture(RESULT, HEADER, GREY, EVIDENCE, DEVICE).pixel_array  # type: ignore[union-attr]
    film = cv2.resize(GREY, (1024, 1024), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    for column, number in enumerate((0, 2)):  # the positive findings
        wanted = blend(film, heatmap(EVIDENCE[number], 1024, 1024))[..., ::-1]
        panel = pixels[:, 1024 * column : 1024 * (column + 1)]
        caption = next(row for row in range(200) if (panel[row : row + 9] == wanted[:9]).all())
        assert (panel[caption : caption + 1024] == wanted).all()
    assert pixels.shape[1] == 2048 and (pixels[-60:] > 200).any()  # letters below


def test_notice_and_numbers_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(cv2, "putText", lambda image, text, *more: written.append(text))
    build_picture(RESULT, HEADER, GREY, EVIDENCE, DEVICE)
    everything = " ".join(written)
    assert "Research software, not a medical device: not for diagnosis or clinical decisions." in everything
    assert "phantoms, not on X-rays of people" in everything and "chestai-densenet 7, 2026-01-02" in everything
    assert "Pneumothorax 91% (positive from 40%)" in written and not any("Cardiomegaly" in line for line in written)
    assert "ller" not in everything and "p1" not in everything  # no patient


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (3, 2, 2), (5, 3, 2), (22, 5, 5)])
def test_panels_make_a_grid_of_limited_size(count: int, columns: int, rows: int) -> None:
    result = with_positives(RESULT, count)
    capture = build_picture(result, HEADER, GREY, evidence_of(result), DEVICE)
    assert capture is not None
    width = max(min(1024, 2048 // columns), 480)
    assert capture.Columns == columns * width <= 2400
    assert rows * 2048 // columns // 2 < capture.Rows <= 2600


@pytest.mark.parametrize("shape", [(900, 100), (100, 900), (1, 1), (3000, 2500)])
def test_films_of_any_shape_are_drawn_with_a_caption_that_fits(shape: tuple[int, int]) -> None:
    drawn = picture.draw_picture(RESULT, np.full(shape, 90, np.uint8), [(RESULT.findings[0], EVIDENCE[0])])
    assert drawn.shape[1] >= picture.NARROWEST and max(drawn.shape) <= 1400
    assert not drawn[:, -4:].max(initial=0, where=(drawn[:, -4:] > 200))  # no letter runs off the edge


def test_nothing_positive_makes_no_picture() -> None:
    negative = with_positives(RESULT, 0)
    assert build_picture(negative, HEADER, GREY, evidence_of(negative), DEVICE) is None
    assert build_picture(RESULT.without_numbers(), HEADER, GREY, EVIDENCE, DEVICE) is None


def test_maps_that_do_not_fit_the_findings_are_refused() -> None:
    with pytest.raises(ValueError, match="not one map for each of 4 findings"):
        build_picture(RESULT, HEADER, GREY, EVIDENCE[:3], DEVICE)
    broken = EVIDENCE.copy()
    broken[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="map of Pneumothorax is not finite"):
        build_picture(RESULT, HEADER, GREY, broken, DEVICE)


def test_a_verdict_changes_nothing() -> None:
    first, second = (build_picture(result, HEADER, GREY, EVIDENCE, DEVICE) for result in (RESULT, reviewed(RESULT)))
    assert first is not None and second is not None
    assert write(first) == write(second)


def test_poor_header_is_enough_and_names_are_not_printed() -> None:
    header = film_header(PatientName="Onlyname", PatientOrientation="", StudyDate="", IssuerOfPatientID="Elsewhere")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        capture = read_back(build_picture(result_of(header), header, GREY, EVIDENCE, DEVICE))
    assert not capture.PatientOrientation and capture.IssuerOfPatientID == "Elsewhere"
    assert capture.PatientName == "Onlyname"
