"""UIDs name the object: another object has another one, and the same has the same."""

import re

from hypothesis import given
from hypothesis import strategies as st

from chestai.results.dicom.uids import KINDS, derive_uid, instance_uid, series_uid


@given(st.text(), st.text(), st.integers(0, 10**6))
def test_uids_are_valid_and_the_same_every_time(film: str, model: str, version: int) -> None:
    uid = instance_uid(film, model, version, "sr")
    assert re.fullmatch(r"2\.25\.(0|[1-9]\d*)", uid) and len(uid) <= 64
    assert uid == instance_uid(film, model, version, "sr")


def test_uids_stay_what_they_were() -> None:
    assert instance_uid("1.2.3.4", "chestai", 7, "sr", 1) == "2.25.44329912002187604060896951325208277038"
    assert series_uid("1.2.3.4", "chestai", 7, "sr") == "2.25.176402614932601682089593988050625130253"


def test_what_differs_has_another_uid() -> None:
    uids = [instance_uid("1.2.3.4", "chestai", 7, kind) for kind in KINDS]
    uids += [series_uid("1.2.3.4", "chestai", 7, kind) for kind in KINDS]
    uids += [
        instance_uid("1.2.3.4", "chestai", 7, "sr", 1),
        instance_uid("1.2.3.4", "chestai", 8, "sr"),
        instance_uid("1.2.3.4", "other", 7, "sr"),
        instance_uid("1.2.3.5", "chestai", 7, "sr"),
    ]
    assert len({*uids}) == len(uids)


def test_only_the_report_has_revisions() -> None:
    for kind in ("sc", "seg"):
        assert instance_uid("1.2.3.4", "chestai", 7, kind, 3) == instance_uid("1.2.3.4", "chestai", 7, kind)


@given(st.lists(st.text(), max_size=3), st.lists(st.text(), max_size=3))
def test_names_are_not_glued_together(one: list[str], other: list[str]) -> None:
    assert (derive_uid(*one) == derive_uid(*other)) == (one == other)
