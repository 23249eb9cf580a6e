"""Which files a client may name: only those below a prefix, and only in a well-formed way."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chestai.errors import UserError
from serve.problems import ApiError
from serve.storage.allowed_prefixes import check_prefixes, resolve_allowed

BUCKETS = ("s3://xray/incoming", "s3://whole")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with the allowed folder `a`, whose links lead out of it, stay inside, or form a circle."""
    for name in ("a/2024/07", "ab", "secret"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "secret" / "film.png").touch()
    (tmp_path / "a" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "a" / "file.png").symlink_to(tmp_path / "secret" / "film.png")
    (tmp_path / "a" / "stays").symlink_to(tmp_path / "a" / "2024")
    (tmp_path / "a" / "round").symlink_to(tmp_path / "a" / "round")
    (tmp_path / "in").symlink_to(tmp_path / "a")
    return tmp_path


def rejection(uri: str, *prefixes: str) -> str:
    with pytest.raises(ApiError) as raised:
        resolve_allowed(uri, prefixes)
    assert (raised.value.problem.status, raised.value.problem.code) == (403, "prefix_not_allowed"), uri
    return raised.value.problem.detail


def test_resolves_paths_below_a_prefix_to_one_form(root: Path) -> None:
    inside = str(root / "a")
    for path, canonical in (
        ("a", "a"),
        ("a/", "a"),
        ("a/2024/07", "a/2024/07"),
        ("a//2024/./07/../07/", "a/2024/07"),
        ("a/not there/x.png", "a/not there/x.png"),
        ("a/stays/07", "a/2024/07"),
        ("in/2024", "a/2024"),
        ("ab/../a/2024", "a/2024"),
    ):
        assert resolve_allowed(f"{root}/{path}", [*BUCKETS, inside]) == str(root / canonical), path
    assert resolve_allowed(f"{root}/in/2024", [str(root / "in")]) == f"{inside}/2024", "a prefix may be a link itself"
    for uri in ("s3://xray/incoming", "s3://xray/incoming/a b/é.dcm", "s3://whole", "s3://whole/x"):
        assert resolve_allowed(uri, BUCKETS) == uri == resolve_allowed(uri + "/", BUCKETS)


OUTSIDE = (  # {root}: the folder of the fixture
    "{root}",
    "{root}/ab",
    "{root}/a b",
    "{root}/secret/film.png",
    "{root}/secret/not there.png",
    "{root}/a/out/film.png",
    "{root}/a/out/not there.png",
    "{root}/a/file.png",
    "{root}/a/round/x",
    "{root}/a/../secret",
    "{root}/a/2024/../../secret/film.png",
    "{root}/a/stays/../../secret",
    "{root}/a/%2e%2e/secret",
    "{root}/a/..\\secret",
    "{root}/a/x\x00.png",
    "{root}/a/x\n.png",
    "{root}/a/" + "x/" * 2000,
    "/{root}/a",
    "file://{root}/a",
    "FILE://{root}/a",
    "/etc/passwd",
    "/",
    "",
    ".",
    "a/2024",
    "~",
    "lake",
    "C:\\images",
    "http://169.254.169.254/latest/meta-data",
    "https://xray/incoming/a",
    "gs://xray/incoming/a",
    "ftp://xray/incoming/a",
    "S3://xray/incoming/a",
    " s3://xray/incoming/a",
    "s3:/xray/incoming/a",
    "s3:///incoming/a",
    "s3://",
    "s3://xray",
    "s3://xray/",
    "s3://xray/incomin",
    "s3://xray/incoming2/a",
    "s3://xray/other",
    "s3://xray/incoming//a",
    "s3://xray/incoming/a//",
    "s3://xray/incoming/../secret",
    "s3://xray/incoming/a/../../secret",
    "s3://xray/incoming/./a",
    "s3://xray/incoming/%2e%2e/secret",
    "s3://xray/incoming/..\\secret",
    "s3://xray//incoming/a",
    "s3://user:key@xray/incoming/a",
    "s3://xray@evil/incoming/a",
    "s3://xray:80/incoming/a",
    "s3://xray?endpoint_override=http:evil/incoming/a",
    "s3://whole.evil.example/x",
    "s3://Whole/x",
    "s3://whole/a\ud800b",
    "s3://whole/" + "x" * 1024,
)


def test_rejects_everything_else_with_one_message(root: Path) -> None:
    details = {rejection(uri.replace("{root}", str(root)), f"{root}/a", *BUCKETS) for uri in OUTSIDE}
    assert len(details) == 1, "the message reveals nothing about what exists"


def test_rejects_everything_without_prefixes(root: Path) -> None:
    for uri in ("/", str(root / "a"), "s3://xray/incoming"):
        rejection(uri)


@given(st.text(st.sampled_from("ab./\\%~: \x00"), max_size=20))
def test_no_spelling_leads_out_of_the_prefix(suffix: str) -> None:
    for prefix in ("/data/a", "s3://xray/a"):
        try:
            resolved = resolve_allowed(f"{prefix}{suffix}", [prefix])
        except ApiError:
            continue
        assert resolved == prefix or resolved.startswith(f"{prefix}/")
        assert not {"..", ".", ""} & set(resolved.removeprefix("s3://").removeprefix("/").split("/"))
        assert resolve_allowed(resolved, [prefix]) == resolved


def test_check_prefixes_rejects_malformed_ones() -> None:
    check_prefixes(["/data/incoming", "s3://xray", "s3://xray/incoming/"])
    for wrong in ("data/incoming", "gs://xray", "s3://xray/../y", "s3://", ""):
        with pytest.raises(UserError, match=r"serve\.prefixes"):
            check_prefixes([wrong])
