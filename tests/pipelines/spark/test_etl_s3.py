"""The ETL from a bucket into a bucket. It runs as a command, whose engines get the credentials from the environment."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from chestai.errors import UserError
from chestai.lake.delta import commit, write_part
from chestai.lake.files import read_bytes
from chestai.lake.lake import Lake
from chestai.lake.schemas import BOXES, IMAGES, LABELS, QUARANTINE, SCHEMAS
from chestai.lake.snapshot import Snapshot
from pipelines.data.files import InputFolder
from tests.support.corpus import BuiltCorpus, corpus_config, encode_png, make_noise, run_etl, write_corpus
from tests.support.paths import ROOT
from tests.support.s3 import S3, serving

CORPUS, LAKE = "s3://xray/corpus", "s3://xray/some/lake"
WORDS = (f"source.root={CORPUS}", f"lake={LAKE}", "cluster.spark.memory=512m")
FILES = 17

Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with serving(tmp_path_factory.mktemp("s3"), "xray") as server:
        yield server


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of the commands, where the logs of a remote lake go."""
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def etl(s3: S3, place: Path) -> Call:
    def call(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipelines.etl", *words]
        environment = {**s3.env, "PYTHONPATH": str(ROOT), **env}
        return subprocess.run(
            command, cwd=place, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    return call


@pytest.fixture(scope="module")
def local(spark_session: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> BuiltCorpus:
    folder = tmp_path_factory.mktemp("local")
    write_corpus(folder / "corpus")
    summary = run_etl(corpus_config(folder / "corpus", folder / "lake"))
    lake = Lake(str(folder / "lake"))
    return BuiltCorpus(folder / "corpus", lake, summary, lake.snapshot())


@pytest.fixture(scope="module")
def first(s3: S3, etl: Call, local: BuiltCorpus, place: Path) -> subprocess.CompletedProcess[str]:
    """The corpus of `local`, built from the bucket into the bucket."""
    s3.upload(local.root, "corpus")
    done = etl(*WORDS)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in place.iterdir()] == ["logs"], "without an MLflow server there is nowhere to log"
    return done


@pytest.fixture
def lake(s3: S3, first: subprocess.CompletedProcess[str], monkeypatch: pytest.MonkeyPatch) -> Lake:
    """The lake in the bucket, readable from this process."""
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    return Lake(LAKE)


def rows(lake: Lake, snapshot: Snapshot, table: str, root: str) -> list[str]:
    """A gold table's rows as sorted text, the source's root apart."""
    found = [json.dumps(row).replace(root, "ROOT") for row in lake.gold(snapshot, table).to_pylist()]
    return sorted(found) if table == QUARANTINE else found


@pytest.mark.slow
def test_a_build_in_a_bucket_is_the_local_one(local: BuiltCorpus, lake: Lake) -> None:
    snapshot = lake.snapshot()
    apart = {"built_at": 0, "fingerprint": 0}
    assert {**snapshot.__dict__, **apart} == {**local.snapshot.__dict__, **apart}
    for table in (IMAGES, LABELS, BOXES, QUARANTINE):
        remote = rows(lake, snapshot, table, CORPUS)
        assert remote == rows(local.lake, local.snapshot, table, str(local.root)) and remote
        assert lake.read(table, snapshot.versions[table]).schema.names == SCHEMAS[table].names


@pytest.mark.slow
def test_what_is_in_gold_can_be_read(local: BuiltCorpus, lake: Lake) -> None:
    usable = lake.usable(lake.snapshot(), [])
    assert usable.num_rows == local.snapshot.accounting["gold"]
    for path in usable["path"].to_pylist():
        assert path.startswith(f"{CORPUS}/images_00")
        assert read_bytes(path) == Path(path.replace(CORPUS, str(local.root))).read_bytes()


@pytest.mark.slow
def test_page_and_report_lie_in_the_bucket(s3: S3, lake: Lake) -> None:
    page = f"etl-{lake.snapshot().snapshot_id}.html"
    assert set(s3.keys("some/lake/reports/")) >= {f"some/lake/reports/{name}" for name in (page, "etl.json")}
    assert b"<html" in read_bytes(lake.uri("reports", page))[:200]
    report = lake.read_report("etl")
    assert report is not None and report["facts"]["page"] == lake.uri("reports", page)


@pytest.mark.slow
def test_the_same_objects_are_not_built_twice(etl: Call, lake: Lake) -> None:
    again = etl(*WORDS)
    assert again.returncode == 0 and f"already built: snapshot {lake.snapshot().snapshot_id}" in again.stdout
    listed = etl("history", f"lake={LAKE}", COLUMNS="200")
    assert listed.returncode == 0
    (line,) = [line for line in listed.stdout.splitlines() if lake.snapshot().snapshot_id in line]
    assert line.split("│")[4].strip() == "6"


@pytest.mark.slow
def test_a_new_object_is_read_alone(s3: S3, etl: Call, lake: Lake, tmp_path: Path) -> None:
    """`tracking.uri` is named here, and the page of this build is logged there."""
    key = "corpus/images_003/00000011_000.png"
    s3.client().put_object(Bucket=s3.bucket, Key=key, Body=encode_png(make_noise(110)))
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    done = etl(*WORDS, f"tracking.uri={uri}")
    assert done.returncode == 0, done.stderr
    report = lake.read_report("etl")
    assert report is not None and report["facts"]["read"] == f"1 new or changed of {FILES + 1} files"
    old, new = lake.history()
    assert (old.accounting["gold"], new.accounting["gold"]) == (6, 7)
    assert lake.gold(new, IMAGES)["path"].to_pylist()[5] == f"s3://{s3.bucket}/{key}"
    assert lake.gold(old, IMAGES).num_rows == 6, "the old snapshot stays readable"
    client = mlflow.MlflowClient(uri)
    (experiment,) = client.search_experiments(filter_string="name = 'chestai'")
    (logged,) = client.search_runs([experiment.experiment_id])
    assert logged.data.params["snapshot"] == new.snapshot_id
    assert [one.path for one in client.list_artifacts(logged.info.run_id)] == [f"etl-{new.snapshot_id}.html"]


@pytest.mark.slow
def test_credentials_are_written_nowhere(s3: S3, first: subprocess.CompletedProcess[str], place: Path) -> None:
    told = [first.stdout, first.stderr, *(path.read_text() for path in place.rglob("*.log"))]
    client = s3.client()
    kept = [client.get_object(Bucket=s3.bucket, Key=key)["Body"].read() for key in s3.keys("some/lake")]
    assert len(kept) > 10 and len(told) == 3
    for secret in (s3.secret, s3.key_id):
        assert not any(secret in text for text in told)
        assert not any(secret.encode() in content for content in kept)


@pytest.mark.slow
def test_commits_never_overwrite_each_other(s3: S3, lake: Lake) -> None:
    """Both ways of committing put a version into the log only where there is none (RFC 9110, If-None-Match: *)."""
    one, schema = pa.table({"n": [1]}), pa.schema({"n": pa.int64()})
    with s3.recorded() as requests:
        lake.write("race", one)
        part = write_part(lake, "race", schema, one.to_batches())
        assert commit(lake, "race", schema, [part]) == 1
    puts = [one for one in requests if one["method"] == "PUT" and "/_delta_log/" in one["url"]]
    assert [put["url"].rsplit("/", 1)[-1] for put in puts] == [f"{version:020}.json" for version in (0, 1)]
    assert {put["headers"].get("If-None-Match") for put in puts} == {"*"}


MISTYPED = {"AWS_SECRET_ACCESS_KEY": "mistyped"}
UNSIGNED = "SignatureDoesNotMatch: The request signature we calculated does not match the signature you provided."


@pytest.mark.parametrize(
    ("source", "lake_uri", "env", "answer"),
    [
        (None, "s3://xrays/lake", {}, "lake=s3://xrays/lake cannot be opened: NoSuchBucket: The specified bucket"),
        (None, LAKE, MISTYPED, f"lake={LAKE} cannot be opened: {UNSIGNED}"),
        ("s3://xrays/corpus", LAKE, {}, "source.root=s3://xrays/corpus is not a folder"),
        (CORPUS, LAKE, MISTYPED, f"source.root={CORPUS} cannot be opened: "),
    ],
)
def test_a_mistake_is_one_line(
    source: str | None,
    lake_uri: str,
    env: dict[str, str],
    answer: str,
    s3: S3,
    etl: Call,
    local: BuiltCorpus,
    place: Path,
) -> None:
    done = etl(f"source.root={source or local.root}", f"lake={lake_uri}", **env)
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"pipelines.etl: {answer}")
    for secret in (s3.secret, s3.key_id, "mistyped"):
        assert secret not in done.stderr + (place / "logs" / "etl.log").read_text()


@pytest.mark.parametrize(
    ("env", "answer"),
    [
        ({"AWS_ACCESS_KEY_ID": "mistyped"}, "InvalidAccessKeyId: .* does not exist in our records.$"),
        ({"AWS_ALLOW_HTTP": "false"}, "set AWS_ALLOW_HTTP=true if AWS_ENDPOINT_URL is http$"),
        pytest.param(
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
            r"Connection refused \(os error 111\)$",
            marks=pytest.mark.slow,  # it is tried for long
        ),
    ],
)
def test_a_lake_out_of_reach_is_named(
    env: dict[str, str], answer: str, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    for touch in (lake.history, lake.snapshot, lambda: lake.open(IMAGES)):
        with pytest.raises(UserError, match=f"^lake={LAKE} cannot be opened: .*{answer}") as told:
            touch()
        assert "mistyped" not in str(told.value)


def test_other_schemes_are_refused() -> None:
    with pytest.raises(UserError, match=r"^lake=s3a://xray/lake cannot be opened: .*s3a"):
        Lake("s3a://xray/lake").history()
    with pytest.raises(UserError, match=r"^source\.root=s3a://xray/corpus cannot be opened: .*s3a"):
        InputFolder.open("s3a://xray/corpus")
