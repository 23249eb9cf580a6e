"""The ETL from a bucket into a bucket.

Builds run as commands, whose engines get the credentials from their environment. Mistakes run in this process.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pyarrow as pa
import pytest

from chestai.errors import UserError
from chestai.lake.delta import commit_parts, write_part
from chestai.lake.files import read_bytes
from chestai.lake.lake import Lake
from chestai.lake.schemas import BOXES, IMAGES, LABELS, QUARANTINE, SCHEMAS
from chestai.lake.snapshot import Snapshot
from pipelines.data.files import InputFolder
from tests.support.commands import run_command
from tests.support.corpus import BuiltCorpus, encode_png, make_noise, write_corpus
from tests.support.paths import ROOT
from tests.support.s3 import S3, start_s3_server

CORPUS, LAKE = "s3://xray/corpus", "s3://xray/some/lake"
WORDS = (f"source.root={CORPUS}", f"lake={LAKE}", "cluster.spark.memory=512m")
FILES = 17

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with start_s3_server(tmp_path_factory.mktemp("s3"), "xray") as server:
        yield server


@pytest.fixture
def lake(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """The lake in the bucket, with the credentials in this process's environment."""
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    return Lake(LAKE)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of the commands, where the logs of a remote lake go."""
    return tmp_path_factory.mktemp("workdir")


@pytest.fixture(scope="module")
def etl(s3: S3, workdir: Path) -> Command:
    def call(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipelines.etl", *words]
        environment = {**s3.env, "PYTHONPATH": str(ROOT), **env}
        return subprocess.run(
            command, cwd=workdir, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    return call


@pytest.fixture(scope="module")
def first_build(s3: S3, etl: Command, built_corpus: BuiltCorpus, workdir: Path) -> subprocess.CompletedProcess[str]:
    """`built_corpus`, built again from the bucket into the bucket."""
    s3.upload(built_corpus.root, "corpus")
    done = etl(*WORDS)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in workdir.iterdir()] == ["logs"], "without an MLflow server there is nowhere to log"
    return done


@pytest.fixture
def built_lake(first_build: subprocess.CompletedProcess[str], lake: Lake) -> Lake:
    return lake


def read_rows(lake: Lake, snapshot: Snapshot, table: str, root: str) -> list[str]:
    """Read a gold table as sorted text without the root of the source."""
    rows = [json.dumps(row).replace(root, "ROOT") for row in lake.read_gold(snapshot, table).to_pylist()]
    return sorted(rows) if table == QUARANTINE else rows


@pytest.mark.slow
def test_build_in_a_bucket_equals_the_local_one(built_corpus: BuiltCorpus, built_lake: Lake) -> None:
    snapshot = built_lake.find_snapshot()
    different = {"built_at": 0, "fingerprint": 0}
    assert {**snapshot.__dict__, **different} == {**built_corpus.snapshot.__dict__, **different}
    for table in (IMAGES, LABELS, BOXES, QUARANTINE):
        remote = read_rows(built_lake, snapshot, table, CORPUS)
        assert remote == read_rows(built_corpus.lake, built_corpus.snapshot, table, str(built_corpus.root)) and remote
        assert built_lake.read(table, snapshot.versions[table]).schema.names == SCHEMAS[table].names


@pytest.mark.slow
def test_images_in_gold_can_be_read(built_corpus: BuiltCorpus, built_lake: Lake) -> None:
    usable = built_lake.read_usable(built_lake.find_snapshot(), [])
    assert usable.num_rows == built_corpus.snapshot.accounting["gold"]
    for path in usable["path"].to_pylist():
        assert path.startswith(f"{CORPUS}/images_00")
        assert read_bytes(path) == Path(path.replace(CORPUS, str(built_corpus.root))).read_bytes()


@pytest.mark.slow
def test_page_and_report_are_in_the_bucket(s3: S3, built_lake: Lake) -> None:
    page = f"etl-{built_lake.find_snapshot().snapshot_id}.html"
    assert set(s3.keys("some/lake/reports/")) >= {f"some/lake/reports/{name}" for name in (page, "etl.json")}
    assert b"<html" in read_bytes(built_lake.uri("reports", page))[:200]
    report = built_lake.read_report("etl")
    assert report is not None and report["facts"]["page"] == built_lake.uri("reports", page)


@pytest.mark.slow
def test_same_objects_are_not_built_again(etl: Command, built_lake: Lake) -> None:
    again = etl(*WORDS)
    assert again.returncode == 0 and f"already built: snapshot {built_lake.find_snapshot().snapshot_id}" in again.stdout
    listed = etl("history", f"lake={LAKE}", COLUMNS="200")
    assert listed.returncode == 0
    (line,) = [line for line in listed.stdout.splitlines() if built_lake.find_snapshot().snapshot_id in line]
    assert line.split("│")[4].strip() == "6"


@pytest.mark.slow
def test_only_a_new_object_is_read(s3: S3, etl: Command, built_lake: Lake, tmp_path: Path) -> None:
    """With `tracking.uri`, the page of the build is logged there."""
    key = "corpus/images_003/00000011_000.png"
    s3.client().put_object(Bucket=s3.bucket, Key=key, Body=encode_png(make_noise(110)))
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    done = etl(*WORDS, f"tracking.uri={uri}")
    assert done.returncode == 0, done.stderr
    report = built_lake.read_report("etl")
    assert report is not None and report["facts"]["read"] == f"1 new or changed of {FILES + 1} files"
    old, new = built_lake.list_snapshots()
    assert (old.accounting["gold"], new.accounting["gold"]) == (6, 7)
    assert built_lake.read_gold(new, IMAGES)["path"].to_pylist()[5] == f"s3://{s3.bucket}/{key}"
    assert built_lake.read_gold(old, IMAGES).num_rows == 6, "the old snapshot stays readable"
    client = mlflow.MlflowClient(uri)
    (experiment,) = client.search_experiments(filter_string="name = 'chestai'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["snapshot"] == new.snapshot_id
    assert [artifact.path for artifact in client.list_artifacts(run.info.run_id)] == [f"etl-{new.snapshot_id}.html"]


@pytest.mark.slow
def test_credentials_are_written_nowhere(s3: S3, first_build: subprocess.CompletedProcess[str], workdir: Path) -> None:
    texts = [first_build.stdout, first_build.stderr, *(path.read_text() for path in workdir.rglob("*.log"))]
    client = s3.client()
    objects = [client.get_object(Bucket=s3.bucket, Key=key)["Body"].read() for key in s3.keys("some/lake")]
    assert len(objects) > 10 and len(texts) == 3
    for secret in (s3.secret, s3.key_id):
        assert not any(secret in text for text in texts)
        assert not any(secret.encode() in content for content in objects)


def test_commits_never_overwrite_each_other(s3: S3, lake: Lake) -> None:
    """Both ways of committing write a version of the log only if it does not exist (RFC 9110, If-None-Match: *)."""
    table, schema = pa.table({"n": [1]}), pa.schema({"n": pa.int64()})
    with s3.record_requests() as requests:
        lake.write("race", table)
        part = write_part(lake, "race", schema, table.to_batches())
        assert commit_parts(lake, "race", schema, [part]) == 1
    puts = [request for request in requests if request["method"] == "PUT" and "/_delta_log/" in request["url"]]
    assert [put["url"].rsplit("/", 1)[-1] for put in puts] == [f"{version:020}.json" for version in (0, 1)]
    assert {put["headers"].get("If-None-Match") for put in puts} == {"*"}


MISTYPED = {"AWS_SECRET_ACCESS_KEY": "mistyped"}
UNSIGNED = "SignatureDoesNotMatch: The request signature we calculated does not match the signature you provided."


@pytest.mark.parametrize(
    ("source", "lake_uri", "env", "message"),
    [
        (None, "s3://xrays/lake", {}, "lake=s3://xrays/lake cannot be opened: NoSuchBucket: The specified bucket"),
        (None, LAKE, MISTYPED, f"lake={LAKE} cannot be opened: {UNSIGNED}"),
        ("s3://xrays/corpus", LAKE, {}, "source.root=s3://xrays/corpus is not a folder"),
        (CORPUS, LAKE, MISTYPED, f"source.root={CORPUS} cannot be opened: "),
    ],
)
def test_mistake_is_one_line_without_secrets(
    source: str | None,
    lake_uri: str,
    env: dict[str, str],
    message: str,
    s3: S3,
    lake: Lake,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_corpus(tmp_path / "corpus")
    monkeypatch.chdir(tmp_path)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    words = (f"source.root={source or tmp_path / 'corpus'}", f"lake={lake_uri}")
    done = run_command(capfd, monkeypatch, "pipelines.etl", *words)
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"pipelines.etl: {message}")
    for secret in (s3.secret, s3.key_id, "mistyped"):
        assert secret not in done.stderr + (tmp_path / "logs" / "etl.log").read_text()


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"AWS_ACCESS_KEY_ID": "mistyped"}, "InvalidAccessKeyId: .* does not exist in our records.$"),
        ({"AWS_ALLOW_HTTP": "false"}, "set AWS_ALLOW_HTTP=true if AWS_ENDPOINT_URL is http$"),
        pytest.param(
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
            r"Connection refused \(os error 111\)$",
            marks=pytest.mark.slow,  # retries take long
        ),
    ],
)
def test_unreachable_lake_is_named(
    env: dict[str, str], message: str, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    for access in (lake.list_snapshots, lake.find_snapshot, lambda: lake.open(IMAGES)):
        with pytest.raises(UserError, match=f"^lake={LAKE} cannot be opened: .*{message}") as raised:
            access()
        assert "mistyped" not in str(raised.value)


def test_other_schemes_are_refused() -> None:
    with pytest.raises(UserError, match=r"^lake=s3a://xray/lake cannot be opened: .*s3a"):
        Lake("s3a://xray/lake").list_snapshots()
    with pytest.raises(UserError, match=r"^source\.root=s3a://xray/corpus cannot be opened: .*s3a"):
        InputFolder.open("s3a://xray/corpus")
