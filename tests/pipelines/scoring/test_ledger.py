"""The scoring plan, the ledger's tables and digest sets, without Ray."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestai.clock import now
from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.lake.schemas import FILE_MISSING
from chestai.model.card import Card
from chestai.monitoring.ood_detector import OUT_OF_DISTRIBUTION
from pipelines.data import digest_set
from pipelines.scoring.corpus import CORPUS, may_be_image
from pipelines.scoring.ledger import FILES, Ledger, contents_schema, make_plan, open_ledger, read_scores
from tests.support.models import make_bundle

FINDINGS = ("Effusion", "Mass")


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def table(schema: pa.Schema, *rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=schema)


def contents(*names: str) -> pa.Table:
    return table(pa.schema({"sha256": pa.string()}), *({"sha256": sha(name)} for name in names))


names = st.lists(st.binary(min_size=1, max_size=2).map(lambda data: hashlib.sha256(data).digest()), max_size=40)


@given(names, names)
def test_digest_sets_behave_like_sets(members: list[bytes], others: list[bytes]) -> None:
    zeros = [bytes(32), b"\x01" + bytes(31), bytes(31) + b"\x01"]  # NumPy pads strings with zeros
    members, others = [*members, zeros[0]], [*others, *zeros[1:], *others[:3]]
    digests = digest_set.make_set(digest_set.parse_digests(pa.array([digest.hex() for digest in members])))
    wanted = digest_set.parse_digests(pa.array([digest.hex() for digest in others]))
    assert digest_set.contains(digests, wanted).tolist() == [digest in members for digest in others]
    fresh, expected = digest_set.find_new(digests, wanted), set(others) - set(members)
    assert {others[index] for index in fresh} == expected and len(fresh) == len(expected)
    assert all(others.index(others[index]) == index for index in fresh), "not the first occurrence"
    grown = digest_set.insert(digests, wanted[fresh])
    assert np.array_equal(grown, digest_set.make_set(np.concatenate([digests, wanted])))


def test_empty_digest_set_contains_nothing() -> None:
    nothing = digest_set.parse_digests(pa.array([], pa.string()))
    assert digest_set.contains(nothing, digest_set.make_digest(bytes(32))).tolist() == [False]
    assert len(digest_set.find_new(nothing, nothing)) == len(digest_set.insert(nothing, nothing)) == 0


# Few values of each field, so that rows of corpus and ledger often match.
states = st.fixed_dictionaries(
    {
        "path": st.sampled_from("abcd"),
        "bytes": st.sampled_from([None, 1, 2]),
        "changed_ns": st.sampled_from([None, 1, 2]),
        "sha256": st.sampled_from([None, *map(sha, "xyz")]),
    }
)
corpora = st.lists(
    st.tuples(states, st.sampled_from([None, None, None, "lateral_view", FILE_MISSING])),
    unique_by=lambda row: row[0]["path"],
)
ledgers = st.lists(
    st.tuples(states, st.sampled_from([None, None, "truncated", "lateral_view", OUT_OF_DISTRIBUTION, FILE_MISSING])),
    unique_by=lambda row: row[0]["path"],
)


@given(corpora, ledgers, st.sets(st.sampled_from("xyz")), st.booleans(), st.booleans())
def test_plan_follows_its_rule(
    corpus: list[tuple[dict[str, Any], str | None]],
    rows_before: list[tuple[dict[str, Any], str | None]],
    scored: set[str],
    force: bool,
    gate: bool,
) -> None:
    """Checks the plan against the rule, spelled out row by row."""
    shas = {sha(name) for name in scored}
    rows = table(CORPUS, *({**state, "image_id": state["path"], "refused": refused} for state, refused in corpus))
    files = table(FILES, *({**state, "image_id": state["path"], "reason": reason} for state, reason in rows_before))
    found = make_plan(rows, files, contents(*sorted(scored)), force, gate)
    for index, (state, refused) in enumerate(corpus):
        old = next((row for row in rows_before if row[0]["path"] == state["path"]), None)
        expected_done = False
        if old is not None and not force:
            before, reason = old
            if refused is not None:
                expected_done = reason == refused
            elif reason == OUT_OF_DISTRIBUTION and not gate:
                expected_done = False
            elif reason != FILE_MISSING and (reason is not None or before["sha256"] in shas):
                timed = None not in (state["bytes"], state["changed_ns"])
                same = timed and all(state[name] == before[name] for name in ("bytes", "changed_ns"))
                expected_done = same or (state["sha256"] is not None and state["sha256"] == before["sha256"])
        expected_scored = not force and not expected_done and refused is None and state["sha256"] in shas
        assert found.done[index] == expected_done
        assert found.refused[index] == (refused is not None and not expected_done)
        assert found.scored[index] == expected_scored
        assert found.missing[index] == (not expected_done and refused is None and not expected_scored)
        assert found.replaced[index] == (old is not None)


def make_file_row(name: str, content: str | None, reason: str | None = None) -> dict[str, Any]:
    return {
        **{"image_id": name, "path": f"/{name}", "bytes": 1, "changed_ns": 1, "scored_at": now()},
        **{"sha256": None if content is None else sha(content), "reason": reason, "detail": None},
    }


def make_content_row(content: str, value: float) -> dict[str, Any]:
    probabilities = {f"prob_{finding}": value for finding in FINDINGS}
    return {
        **{"sha256": sha(content), "image_id": content, "bucket": "soon", "triage_score": value, **probabilities},
        **{"model_version": 3, "snapshot": None, "scored_at": now()},
    }


@pytest.fixture(scope="module")
def card() -> Card:
    return make_bundle().card.model_copy(update={"findings": FINDINGS})


@pytest.fixture
def ledger(card: Card, tmp_path: Path) -> Ledger:
    return open_ledger(Lake(str(tmp_path / "lake")), 3, card)[0]


def write(ledger: Ledger, scores: list[dict[str, Any]], files: list[dict[str, Any]], replace: bool = False) -> None:
    ledger.write(table(contents_schema(FINDINGS), *scores), table(FILES, *files), replace, True)


def test_read_scores_returns_one_row_per_file_most_urgent_first(ledger: Ledger) -> None:
    write(
        ledger,
        [make_content_row("x", 0.2), make_content_row("y", 0.9)],
        [make_file_row("b", "x"), make_file_row("a", "x"), make_file_row("c", "y"), make_file_row("d", "z", "cut")],
    )
    found = read_scores(ledger.lake, 3)
    assert found["image_id"].to_pylist() == ["c", "a", "b", "d"]
    assert found["prob_Mass"].to_pylist() == [0.9, 0.2, 0.2, None]
    assert found["not_scored"].to_pylist() == [None, None, None, "cut"]
    assert found["model_version"].to_pylist() == [3] * 4
    mine = table(CORPUS, {"image_id": "mine", "path": "/c"}, {"image_id": "new", "path": "/e"})
    assert read_scores(ledger.lake, 3, mine)["image_id"].to_pylist() == ["mine"]


def test_file_that_became_unreadable_loses_its_score(ledger: Ledger) -> None:
    write(ledger, [make_content_row("x", 0.2)], [make_file_row("a", "x")])
    write(ledger, [], [make_file_row("a", "x", "truncated")])
    (only,) = read_scores(ledger.lake, 3).to_pylist()
    assert (only["not_scored"], only["triage_score"], only["bucket"]) == ("truncated", None, None)


def test_write_replaces_rows_in_one_commit_per_table(ledger: Ledger) -> None:
    write(ledger, [make_content_row("x", 0.2)], [make_file_row("a", "x"), make_file_row("b", "x")])
    versions = [ledger.lake.open(table).version() for table in (ledger.contents, ledger.files)]
    write(
        ledger,
        [make_content_row("x", 0.3), make_content_row("y", 0.4)],
        [make_file_row("a", "y"), make_file_row("c", "y")],
        replace=True,
    )
    assert [ledger.lake.open(table).version() - 1 for table in (ledger.contents, ledger.files)] == versions
    found = {row["image_id"]: row["triage_score"] for row in read_scores(ledger.lake, 3).to_pylist()}
    assert found == {"a": 0.4, "b": 0.3, "c": 0.4}


def test_ledger_of_another_model_with_same_version_starts_empty(ledger: Ledger, card: Card) -> None:
    write(ledger, [make_content_row("x", 0.2)], [make_file_row("a", "x")])
    assert open_ledger(ledger.lake, 3, card)[1] is False
    assert len(ledger.read_scored()[0]) == 1
    other = card.model_copy(update={"run_id": "another"})
    assert open_ledger(ledger.lake, 3, other)[1] is True
    assert len(ledger.read_scored()[0]) == 0
    corpus = table(CORPUS, {"image_id": "a", "path": "/a", "bytes": 1, "changed_ns": 1})
    assert ledger.plan(corpus, False, True).missing.tolist() == [True], "its file must be read again"


def test_table_of_earlier_release_is_reported_and_replaced(card: Card, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    lake.write("scores/1", pa.table({"image_id": ["a"], "bucket": ["soon"], "not_scored": pa.nulls(1, pa.string())}))
    with pytest.raises(UserError, match=r"written by an earlier release: run `python -m pipelines\.score`"):
        read_scores(lake, 1)
    assert open_ledger(lake, 1, card)[1] is True
    assert read_scores(lake, 1).num_rows == 0
    assert open_ledger(lake, 1, card)[1] is False
    with pytest.raises(UserError, match="no table scores/2"):
        read_scores(lake, 2)


@pytest.mark.parametrize("name", ["a.png", "a.JPG", "a.jpeg", "a.dcm", "A.DICOM", "IM0001", "1.2.840.113"])
def test_accepts_names_of_images(name: str) -> None:
    assert may_be_image(name)


@pytest.mark.parametrize("name", ["a.txt", "DICOMDIR", "a.png.bak", "labels.csv", "a.gif", "a.tar.gz"])
def test_rejects_names_of_other_files(name: str) -> None:
    assert not may_be_image(name)
