"""Seen patients: their hashes, and the text that stores them."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chestai.model.seen_patients import SeenPatients, from_text, overlap, patient_hash, to_text

TRAIN, VAL = [f"nih:{number:08}" for number in range(1, 60)], [f"nih:{number:08}" for number in range(60, 80)]


@pytest.fixture(scope="module")
def seen() -> SeenPatients:
    return SeenPatients.of(TRAIN, VAL, salt="pepper")


def test_finds_the_role_of_each_patient(seen: SeenPatients) -> None:
    assert {seen.role(one) for one in TRAIN} == {"train"} and {seen.role(one) for one in VAL} == {"val"}
    assert seen.role("nih:00000080") is None and seen.role("chexpert:00000001") is None


def test_hash_is_blake2b_keyed_by_the_salt() -> None:
    expected = hashlib.blake2b(b"nih:7", key=b"pepper", digest_size=8).hexdigest()
    assert SeenPatients.of(["nih:7"], [], salt="pepper") == SeenPatients("pepper", frozenset([expected]), frozenset())


def test_salt_is_random_by_default() -> None:
    first, second = SeenPatients.of(TRAIN, VAL), SeenPatients.of(TRAIN, VAL)
    assert first.salt != second.salt and not first.train & second.train
    assert first.role(TRAIN[0]) == second.role(TRAIN[0]) == "train"


def test_patients_of_different_sources_have_different_hashes() -> None:
    assert len({patient_hash("nih", "1"), patient_hash("nih", "2"), patient_hash("chexpert", "1")}) == 3


def test_repeated_patient_counts_once(seen: SeenPatients) -> None:
    assert SeenPatients.of(TRAIN * 2, VAL, salt="pepper") == seen and len(seen.train) == len(TRAIN)


def test_overlap_names_patients_seen_by_any_training(seen: SeenPatients) -> None:
    other = SeenPatients.of([VAL[0], "nih:new"], [TRAIN[0], "nih:late"], salt="other")
    asked = [TRAIN[0], VAL[0], VAL[1], "nih:new", "nih:late", "nih:nobody"]
    expected = {TRAIN[0]: "train", VAL[0]: "train", VAL[1]: "val", "nih:new": "train", "nih:late": "val"}
    assert overlap([seen, other], asked) == overlap([other, seen], iter(asked)) == expected
    assert overlap([], asked) == {} and overlap([seen], []) == {}


def test_hashes_of_all_chestxray14_patients_are_unique() -> None:
    many = [f"nih:{number:08}" for number in range(30_805)]
    whole = SeenPatients.of(many[:28_000], many[28_000:])
    assert (len(whole.train), len(whole.val)) == (28_000, 2_805), "no two share a hash"
    found = overlap(from_text(to_text([whole])), [*many, "nih:x"])
    assert list(found.values()) == ["train"] * 28_000 + ["val"] * 2_805


def test_text_is_sorted_and_names_no_patient(seen: SeenPatients) -> None:
    lines = to_text([seen]).splitlines()
    assert lines[0] == "salt pepper" and lines[-1] == "end" and lines[1:-1] == sorted(lines[1:-1])
    assert [line.split()[0] for line in lines[1:-1]] == ["train"] * len(TRAIN) + ["val"] * len(VAL)
    assert not any(one in to_text([seen]) for one in TRAIN + VAL)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sets(st.text(max_size=5), max_size=6), st.sets(st.text(max_size=5), max_size=6))))
def test_round_trips_through_text(groups: list[tuple[set[str], set[str]]]) -> None:
    trainings = tuple(SeenPatients.of(train - val, val) for train, val in groups)
    assert from_text(to_text(trainings)) == trainings


def test_rejects_truncated_text(seen: SeenPatients) -> None:
    text = to_text([SeenPatients.of(TRAIN[:2], VAL[:1]), SeenPatients.of([], [])])
    for length in range(len(text) - 1):  # without its last line break it is still whole
        with pytest.raises(ValueError, match="cut off"):
            from_text(text[:length])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("train 0123456789abcdef\nend\n", "line 1 is no list of patients"),
        ("salt pepper\nTRAIN 0123456789abcdef\nend\n", "line 2 is no list of patients"),
        ("salt pepper\n\nend\n", "line 2 is no list of patients"),
        ("salt pepper\ntrain 0123456789abcde\nend\n", "must be a hash of 16 hexadecimal digits"),
        ("salt pepper\nval nih:00000001\nend\n", "must be a hash"),
        ("salt pep per\nend\n", "salt 'pep per' must be"),
        ("salt \nend\n", "salt '' must be"),
        ("salt p\ntrain 0123456789abcdef\nval 0123456789abcdef\nend\n", "1 patients are in train and in val"),
        ("<html>\nend\n", "line 1 is no list"),
    ],
)
def test_rejects_damaged_text_in_one_line(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as error:
        from_text(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("salt", ["", "two words", "p" * 65, "line\n", "ä"])
def test_rejects_unusable_salt(salt: str) -> None:
    with pytest.raises(ValueError, match="must be 1 to 64 printable ASCII characters"):
        SeenPatients.of(TRAIN, VAL, salt=salt)


def test_rejects_patient_in_train_and_val() -> None:
    with pytest.raises(ValueError, match="2 patients are in train and in val"):
        SeenPatients.of(TRAIN, TRAIN[:2])
