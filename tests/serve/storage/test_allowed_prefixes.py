"""Which places a client may name: nothing that is written strangely, and nothing beside the prefixes."""

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
    """A folder that is allowed, `a`, beside others; of its links one leads out, one stays, one leads in a circle."""
    for name in ("a/2024/07", "ab", "secret"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "secret" / "film.png").touch()
    (tmp_path / "a" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "a" / "file.png").symlink_to(tmp_path / "secret" / "film.png")
    (tmp_path / "a" / "stays").symlink_to(tmp_path / "a" / "2024")
    (tmp_path / "a" / "round").symlink_to(tmp_path / "a" / "round")
    (tmp_path / "in").symlink_to(tmp_path / "a")
    return tmp_path


def refused(uri: str, *prefixes: str) -> str:
    with pytest.raises(ApiError) as caught:
        resolve_allowed(uri, prefixes)
    assert (caught.value.problem.status, caught.value.problem.code) == (403, "prefix_not_allowed"), uri
    return caught.value.problem.detail


def test_what_lies_below_a_prefix_is_told_in_one_way(root: Path) -> None:
    inside = str(root / "a")
    for named, meant in (
        ("a", "a"),
        ("a/", "a"),
        ("a/2024/07", "a/2024/07"),
        ("a//2024/./07/../07/", "a/2024/07"),
        ("a/not there/x.png", "a/not there/x.png"),
        ("a/stays/07", "a/2024/07"),
        ("in/2024", "a/2024"),
        ("ab/../a/2024", "a/2024"),
    ):
        assert resolve_allowed(f"{root}/{named}", [*BUCKETS, inside]) == str(root / meant), named
    assert resolve_allowed(f"{root}/in/2024", [str(root / "in")]) == f"{inside}/2024", "a prefix may be a link itself"
    for uri in ("s3://xray/incoming", "s3://xray/incoming/a b/é.dcm", "s3://whole", "s3://whole/x"):
        assert resolve_allowed(uri, BUCKETS) == uri == resolve_allowed(uri + "/", BUCKETS)


def test_nothing_else_is_allowed(root: Path) -> None:
    inside = f"{root}/a"
    details = {
        refused(uri, inside, *BUCKETS)
        for uri in (
            str(root),
            f"{root}/ab",
            f"{root}/a b",
            f"{root}/secret/film.png",
            f"{root}/secret/not there.png",
            f"{inside}/out/film.png",
            f"{inside}/out/not there.png",
            f"{inside}/file.png",
            f"{inside}/round/x",
            f"{inside}/../secret",
            f"{inside}/2024/../../secret/film.png",
            f"{inside}/stays/../../secret",
            f"{inside}/%2e%2e/secret",
            f"{inside}/..\\secret",
            f"{inside}/x\x00.png",
            f"{inside}/x\n.png",
            f"{inside}/" + "x/" * 2000,
            f"/{inside}",
            f"file://{inside}",
            f"FILE://{inside}",
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
    }
    assert len(details) == 1, "nothing is told of what is there"


def test_without_prefixes_nothing_is_allowed(root: Path) -> None:
    for uri in ("/", str(root / "a"), "s3://xray/incoming"):
        refused(uri)


@given(st.text(st.sampled_from("ab./\\%~: \x00"), max_size=20))
def test_no_way_of_writing_leads_out(rest: str) -> None:
    for prefix in ("/data/a", "s3://xray/a"):
        try:
            place = resolve_allowed(f"{prefix}{rest}", [prefix])
        except ApiError:
            continue
        assert place == prefix or place.startswith(f"{prefix}/")
        assert not {"..", ".", ""} & set(place.removeprefix("s3://").removeprefix("/").split("/"))
        assert resolve_allowed(place, [prefix]) == place


def test_a_prefix_that_could_never_fit_is_a_mistake() -> None:
    check_prefixes(["/data/incoming", "s3://xray", "s3://xray/incoming/"])
    for wrong in ("data/incoming", "gs://xray", "s3://xray/../y", "s3://", ""):
        with pytest.raises(UserError, match=r"serve\.prefixes"):
            check_prefixes([wrong])
