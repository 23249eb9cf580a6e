"""The CSV tables of the evidence, read back."""

import csv
import dataclasses
import io
import math

from chestai.evaluation.evidence import Evidence
from chestai.metrics.localisation import OVERLAPS
from chestai.pages.model_card.csv_tables import render_csv_tables
from tests.chestai.pages import card_evidence as made
from tests.chestai.pages.search_evidence import RANKINGS


def read_rows(evidence: Evidence, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render_csv_tables(evidence)[name])))


def test_tables_keep_full_precision() -> None:
    evidence = made.make_evidence()
    ranking = read_rows(evidence, "ranking.csv")
    assert [row["finding"] for row in ranking] == [*evidence.subject.findings, "macro", "micro"]
    assert float(ranking[-2]["auroc"]) == evidence.performance.macro_auroc.value, "to the last digit"
    assert float(ranking[2]["auprc_high"]) == evidence.performance.findings[2].auprc.high
    assert float(ranking[0]["prevalence"]) == 4000 / 25596
    assert ranking[13]["auroc"] == ranking[13]["auroc_low"] == "" and ranking[13]["negatives"] == "25596"

    points = read_rows(evidence, "operating_points.csv")
    assert len(points) == 4 * 14 and points[1]["threshold"] == repr(evidence.operating_points[1].threshold)
    assert (points[0]["point"], points[0]["fp"], points[13]["fp"], points[13]["ppv"]) == ("youden", "6411", "", "")

    calibration = read_rows(evidence, "calibration.csv")
    assert [row["ece"] for row in calibration if row["finding"] == "macro"] == ["0.21", "0.011", "0.012", "0.009"]
    assert {row["method"] for row in calibration if row["in_force"] == "1"} == {"platt"}
    pooled = [row for row in read_rows(evidence, "reliability_curve.csv") if row["finding"] == "pooled"]
    assert tuple(float(row["observed"]) for row in pooled[:13]) == evidence.calibration[0].pooled.observed

    triage = read_rows(evidence, "triage.csv")
    assert [(row["bucket"], row["tp"], row["urgent_in_bucket"]) for row in triage] == [
        ("urgent", "1500", "1500"),
        ("soon", "2500", "1000"),
    ]
    assert {row["maximum"] for row in read_rows(evidence, "queue.csv") if row["group"] == "urgent"} == {
        "402.0",
        "911.2",
        "290.1",
    }


def test_tables_of_search() -> None:
    evidence = made.make_evidence()
    images = read_rows(evidence, "search_by_image.csv")
    assert len(images) == (14 + 1) * len(RANKINGS) and (images[0]["ranking"], images[0]["queries"]) == (
        "model",
        "900",
    )
    assert float(images[0]["precision"]) == 0.4 and images[0]["gain"] == "" and images[-5]["precision"] == ""
    assert float(images[-1]["gain_low"]) == 0.12 - 0.015 and images[-4]["gain"] == ""
    texts = read_rows(evidence, "search_by_text.csv")
    assert [row["text"] for row in texts][-1] == "hernia" and texts[-1]["average_precision"] == ""
    assert float(texts[0]["precision_high"]) == 0.9 + 0.02


def test_tables_of_subgroups_heatmaps_and_corruptions() -> None:
    evidence = made.make_evidence()
    groups = read_rows(evidence, "subgroups.csv")
    assert len(groups) == 15 + 2 and groups[4]["macro_auroc"] == "" and groups[-1]["group"] == "unlikely_view"
    gap = read_rows(evidence, "subgroup_gaps.csv")[1]
    assert (gap["better"], gap["worse"], float(gap["gap"])) == ("0-19", "60-79", 0.06)
    assert tuple(gap["findings"].split()) == evidence.subject.findings[:9]

    located = read_rows(evidence, "localisation.csv")
    iou = [row for row in located if (row["cases"], row["maps"], row["metric"]) == ("shown", "model", "iou")]
    assert [float(row["threshold"]) for row in iou] == list(OVERLAPS) and {row["count"] for row in iou} == {"804"}
    assert [row["maps"] for row in located if row["metric"] == "gain"] == ["random", "centre", "untrained_network"]
    of_mass = next(row for row in located if row["finding"] == "Mass" and row["cases"] == "all")
    assert (of_mass["value"], of_mass["value_low"], of_mass["count"]) == ("0.61", "", "40")

    drops = read_rows(evidence, "robustness.csv")
    assert len(drops) == 21 and drops[3]["corruption"] == "contrast"
    assert math.isclose(float(drops[2]["change_low"]), -0.038) and drops[11]["change"] == ""


def test_tables_of_confidence() -> None:
    evidence = made.make_evidence()
    bands, sets = read_rows(evidence, "confidence_bands.csv"), read_rows(evidence, "label_sets.csv")
    assert len(bands) == 13 * 6 and bands[1]["score_from"] == "0.0025" and bands[0]["val_images"] == "3000"
    assert (bands[5]["val_low"], bands[5]["images"], bands[5]["observed_high"]) == ("0.35", "40", "1.0")
    assert [row["finding"] for row in sets] == [*evidence.subject.findings]
    assert (sets[0]["absent_to"], sets[0]["present"], sets[13]["present"]) == ("0.32", "0.913", "")


def test_tables_exist_only_for_measured_sections() -> None:
    assert set(render_csv_tables(made.make_bare_evidence())) == {"ranking.csv"}
    names = "ranking operating_points calibration reliability_curve confidence_bands label_sets triage queue subgroups "
    names += "subgroup_gaps localisation robustness search_by_image search_by_text"
    assert list(render_csv_tables(made.make_evidence())) == [f"{name}.csv" for name in names.split()]


def test_texts_that_are_formulas_get_an_apostrophe() -> None:
    evidence = made.make_evidence()
    first, *others = evidence.performance.findings
    performance = dataclasses.replace(
        evidence.performance, findings=(dataclasses.replace(first, finding="=1+1"), *others)
    )
    rows = read_rows(dataclasses.replace(evidence, performance=performance), "ranking.csv")
    assert rows[0]["finding"] == "'=1+1" and rows[1]["finding"] == others[0].finding
