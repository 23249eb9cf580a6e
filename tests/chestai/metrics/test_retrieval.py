"""Search by image and by text, against loops over every image and against all orders there are."""

from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from chestai.metrics.bootstrap import Bootstrap
from chestai.metrics.ranking import Ranking, precision_of_first
from chestai.metrics.retrieval import MODEL, RANDOM, SAME_VIEW, SearchSet, measure_retrieval
from chestai.metrics.text_search import AskedFindings, label_images, measure_text_search

NO_INTERVALS = Bootstrap(0)
FINDINGS = ("Mass", "Edema", "Hernia")
NAN = np.nan


def draw(generator: np.random.Generator, images: int, patients: int) -> SearchSet:
    """Random images; a tenth of the labels is not known, and nobody has the last finding."""
    targets = (generator.random((images, 3)) < (0.4, 0.1, 0)).astype(float)
    targets[generator.random((images, 3)) < 0.1] = NAN
    vectors = generator.normal(size=(images, 8)).astype(np.float32)
    vectors[:, 0] += np.nan_to_num(targets[:, 0]) * 2
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = np.array([f"patient {number}" for number in generator.integers(patients, size=images)])
    return SearchSet(targets, ids, generator.choice(["PA", "AP"], images), {MODEL: vectors, "other": -vectors})


def judge_order(right: list[bool], total: int, first: int) -> tuple[float, float]:
    """Precision and average precision of the first hits of one order, as the definition has them."""
    hits = right[:first]
    precisions = [sum(hits[: place + 1]) / (place + 1) for place in range(len(hits)) if hits[place]]
    return sum(hits) / len(hits), sum(precisions) / min(total, first)


def search_slowly(queries: SearchSet, library: SearchSet, name: str, column: int, first: int) -> list[float]:
    """Mean precision and average precision over the queries, one image at a time."""
    values = []
    for query in np.flatnonzero(queries.targets[:, column] == 1):
        among = [
            row
            for row in range(len(library.targets))
            if library.patients[row] != queries.patients[query] and not np.isnan(library.targets[row, column])
        ]
        products = {row: float(library.vectors[name][row] @ queries.vectors[name][query]) for row in among}
        order = sorted(among, key=lambda row: -products[row])
        right = [bool(library.targets[row, column] == 1) for row in order]
        if any(right):
            values.append(judge_order(right, sum(right), first))
    return list(np.mean(values, axis=0))


@pytest.mark.parametrize("first", [1, 10, 60])
def test_numbers_are_those_of_a_loop_over_every_image(first: int) -> None:
    generator = np.random.default_rng(first)
    queries, library = draw(generator, 70, 40), draw(generator, 50, 40)  # patients of whom both have images
    report = measure_retrieval(queries, library, FINDINGS, NO_INTERVALS, first=first)
    assert (report.queries, report.library, report.rankings) == (70, 50, (MODEL, "other", SAME_VIEW, RANDOM))
    for column, row in enumerate(report.findings[:2]):
        assert row.queries == (queries.targets[:, column] == 1).sum()
        assert row.relevant == (library.targets[:, column] == 1).sum()
        for name in (MODEL, "other"):
            found = [row.precision[name].value, row.average_precision[name].value]
            assert found == pytest.approx(search_slowly(queries, library, name, column, first))
    rare = report.findings[2]
    assert (rare.queries, rare.relevant) == (0, 0)
    assert all(np.isnan(each.value) for each in (*rare.precision.values(), *rare.average_precision.values()))
    assert report.macro_precision[MODEL].value == pytest.approx(
        np.mean([row.precision[MODEL].value for row in report.findings[:2]])
    )


@pytest.mark.parametrize("first", [1, 3, 10])
def test_chance_is_the_mean_over_all_orders(first: int) -> None:
    """One query, six images of other patients, three of them of its view; one more is its own patient's."""
    targets = np.array([[1.0], [0], [1], [0], [0], [1], [1]])
    views = np.array(["PA", "PA", "PA", "AP", "AP", "AP", "PA"])
    patients = np.array(["a", "b", "c", "d", "e", "f", "query"])
    ones = np.ones((7, 1), np.float32)
    library = SearchSet(targets, patients, views, {MODEL: ones})
    query = SearchSet(targets[:1], np.array(["query"]), np.array(["PA"]), {MODEL: ones[:1]})
    row = measure_retrieval(query, library, ("Mass",), NO_INTERVALS, first=first).findings[0]
    for name, chosen in ((RANDOM, [0, 1, 2, 3, 4, 5]), (SAME_VIEW, [0, 1, 2])):
        right = (targets[chosen, 0] == 1).tolist()
        expected = np.mean([judge_order(list(order), 3, first) for order in permutations(right)], axis=0)
        found = [row.precision[name].value, row.average_precision[name].value]
        assert found == pytest.approx(expected.tolist()), name


def test_library_without_images_of_other_patients_finds_nothing() -> None:
    generator = np.random.default_rng(3)
    alone = draw(generator, 6, 1)
    report = measure_retrieval(alone, alone, FINDINGS, Bootstrap(10))
    assert all(np.isnan(each.value) for row in report.findings for each in row.precision.values())


def test_other_networks_in_the_library_are_refused() -> None:
    images = draw(np.random.default_rng(4), 6, 6)
    fewer = SearchSet(images.targets, images.patients, images.views, {MODEL: images.vectors[MODEL]})
    with pytest.raises(ValueError, match="the library of"):
        measure_retrieval(images, fewer, FINDINGS, NO_INTERVALS)


def test_intervals_are_of_patients_and_hold_the_gain() -> None:
    generator = np.random.default_rng(5)
    library, queries = draw(generator, 300, 300), draw(generator, 120, 100)
    patients = np.array([f"query {at}" for at in range(120)])
    narrow, wide = (
        measure_retrieval(
            SearchSet(queries.targets, owners, queries.views, queries.vectors), library, FINDINGS, Bootstrap(400, 1)
        )
        for owners in (patients, np.array([f"query {at // 30}" for at in range(120)]))
    )
    for report in (narrow, wide):
        own, chance = report.macro_precision[MODEL], report.macro_precision[RANDOM]
        assert own.low < own.value < own.high and report.gains[RANDOM].value == pytest.approx(own.value - chance.value)
    assert narrow.gains[RANDOM].low > 0, "the vectors say which images have a mass"
    edema = [report.findings[1].precision["other"] for report in (narrow, wide)]
    assert edema[0].value == edema[1].value and edema[0].high - edema[0].low != edema[1].high - edema[1].low


def test_precision_of_first_weighs_images_and_shares_ties() -> None:
    generator = np.random.default_rng(6)
    targets, scores = (generator.random(40) < 0.3).astype(float), np.round(generator.normal(size=40), 1)
    weights = generator.integers(0, 4, (5, 40)).astype(float)
    ranking = Ranking.of(targets, scores)
    found = precision_of_first(*ranking.count_positives(weights), first=10)
    for row, value in zip(weights.astype(int), found, strict=True):
        truth, values = np.repeat(targets, row), np.repeat(scores, row)
        last = np.sort(values)[-10]
        sure, tied = truth[values > last], truth[values == last]
        assert value == pytest.approx((sure.sum() + tied.mean() * (10 - len(sure))) / 10)


def test_texts_are_ranked_by_their_scores() -> None:
    generator = np.random.default_rng(7)
    targets = (generator.random((200, 2)) < 0.3).astype(float)
    targets[:20, 1] = NAN
    patients = np.arange(200) // 2
    scores = [targets[:, 0] + generator.normal(size=200), generator.normal(size=200)]
    asked = {"mass": AskedFindings((0,)), "mass without edema": AskedFindings((0,), (1,))}
    report = measure_text_search(asked, targets, scores, patients, Bootstrap(50), outside=["pacemaker"])
    assert report.outside == ("pacemaker",) and [row.text for row in report.results] == [*asked]
    for row, findings, values in zip(report.results, asked.values(), scores, strict=True):
        truth = label_images(targets, findings)
        known = ~np.isnan(truth)
        assert (row.images, row.right) == (known.sum(), np.nansum(truth))
        assert row.average_precision.value == pytest.approx(average_precision_score(truth[known], values[known]))
        first = np.argsort(-values[known])[:10]
        assert row.precision.value == pytest.approx(truth[known][first].mean())
        assert row.average_precision.low < row.average_precision.value < row.average_precision.high


def test_one_label_settles_whether_an_image_is_asked_for() -> None:
    targets = np.array([[1, 0], [1, 1], [0, NAN], [1, NAN], [NAN, 1], [NAN, 0]])
    labels = label_images(targets, AskedFindings((0,), (1,)))
    np.testing.assert_array_equal(labels, [1, 0, 0, NAN, 0, NAN])
