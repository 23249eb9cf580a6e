"""Names of clients: characters that people cannot see are refused, other scripts are not."""

import pytest

from serve.api.uploads import check_file_name
from serve.problems import ApiError
from serve.storage.allowed_prefixes import resolve_allowed
from serve.storage.names import has_hidden_characters

HIDDEN = {
    "right-to-left override": "chest\u202egnp.exe",
    "left-to-right isolate": "\u2066chest\u2069.png",
    "right-to-left mark": "chest\u200f.png",
    "zero-width space": "che\u200bst.png",
    "byte order mark": "\ufeffchest.png",
    "soft hyphen": "che\u00adst.png",
    "tag": "chest\U000e0041.png",
    "line separator": "chest\u2028.png",
    "paragraph separator": "chest\u2029.png",
    "bell": "chest\x07.png",
    "half a character": "chest\ud800.png",
}
VISIBLE = ("Röntgen Thorax 胸部.png", "صدر.png", "חזה.png", "छाती.png", "<b>.png", "a b.png", "")


@pytest.mark.parametrize("case", HIDDEN)
def test_rejects_hidden_characters(case: str) -> None:
    name = HIDDEN[case]
    assert has_hidden_characters(name)
    with pytest.raises(ApiError) as refused:
        check_file_name(name)
    assert refused.value.problem.code == "unsafe_file_name"
    for uri in (f"/data/{name}", f"s3://bucket/{name}"):
        with pytest.raises(ApiError) as refused:
            resolve_allowed(uri, ["/data", "s3://bucket"])
        assert refused.value.problem.code == "prefix_not_allowed"


def test_accepts_other_scripts() -> None:
    assert [name for name in VISIBLE if has_hidden_characters(name) or check_file_name(name) != name] == []
