"""Runs and the model registry: everything that is read from and written to MLflow."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema

from chestai.config.schema import Tracking
from chestai.errors import UserError
from chestai.lake.alembic_lock import ALEMBIC_LOCK
from chestai.lake.lake import Lake
from chestai.monitoring.drift import DriftReference

if TYPE_CHECKING:  # they import torch, for which commands that only read or move an alias should not wait
    from chestai.model.bundle import Bundle
    from chestai.model.runtimes import Runtime
    from chestai.model.runtimes.effect import RuntimeEffect

CHAMPION = "champion"
NOT_FOUND = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # MLflow's codes for no such model or alias
CHAMPIONS = "champions"  # tag of the registered model: earlier champions, oldest first
ROLLED_BACK = "rolled_back"  # tag of a version
GATE, PASSED = "gate", "passed"  # tag of a version: the verdict of the promotion gate
RUNTIME = "runtime_effect_{}_{}"  # tag of a version: the effect of a runtime on its probabilities
MODEL_CARD = "model_card"  # tag of a version: where the page of its model card is
BUNDLE = "bundle"  # artifact folder of a training run, and of a registered model

PACKAGE = Path(__file__).resolve().parents[1]
SERVING_NEEDS = ("torch", "timm", "safetensors", "opencv-python-headless", "numpy", "pydantic", "scikit-learn")


@dataclass(frozen=True)
class RegisteredModel:
    """A version in the registry and its bundle."""

    name: str
    version: int
    bundle: "Bundle"


@dataclass(frozen=True)
class Champion:
    """A version that is or was champion. gate: the verdict of the promotion gate; None if it was never asked.

    description: what its evaluation found.
    """

    version: int
    registered_at: datetime
    gate: str | None
    description: str

    @classmethod
    def of(cls, version: ModelVersion) -> "Champion":
        registered_at = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
        return cls(int(version.version), registered_at, version.tags.get(GATE), version.description or "")


@dataclass(frozen=True)
class Registry:
    """MLflow for one lake: the server that `tracking.uri` names, or SQLite inside the lake."""

    tracking: Tracking
    lake: Lake

    @property
    def uri(self) -> str:
        """The tracking URI.

        Raises:
            UserError: The lake is remote and no server is named.
        """
        if self.tracking.uri is not None:
            return self.tracking.uri
        if not self.lake.local:
            raise UserError(f"tracking.uri is needed with the remote lake {self.lake.root}: name an MLflow server")
        return self.lake.sqlite_url("mlflow", "mlflow.db")

    def client(self) -> mlflow.MlflowClient:
        """Returns a client that leaves MLflow's global state alone, for replicas ask while others log."""
        if self.tracking.uri is None:
            Path(self.lake.uri("mlflow")).mkdir(parents=True, exist_ok=True)
        is_server = self.uri.startswith(("http://", "https://"))  # which has its tables, and may take long to answer
        with nullcontext() if is_server else ALEMBIC_LOCK:  # the first client creates the tables
            client = mlflow.MlflowClient(self.uri, self.uri)
            client.get_experiment_by_name(self.tracking.experiment)
        return client

    def connect(self) -> mlflow.MlflowClient:
        """Points MLflow at the tracking URI, creates the experiment if needed, and returns a client."""
        client = self.client()
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_registry_uri(self.uri)
        if client.get_experiment_by_name(self.tracking.experiment) is None:
            location = None if self.tracking.uri else Path(self.lake.uri("mlflow", "artifacts")).as_uri()
            client.create_experiment(self.tracking.experiment, artifact_location=location)
        mlflow.set_experiment(self.tracking.experiment)
        return client

    def finished_runs(self, tags: Mapping[str, str]) -> list[Run]:
        """Finished runs that carry all these tags, newest first."""
        client = self.client()
        experiment = client.get_experiment_by_name(self.tracking.experiment)
        if experiment is None:
            return []
        equal = [f"tags.`{name}` = '{value}'" for name, value in tags.items()]
        wanted = " and ".join([*equal, "attributes.status = 'FINISHED'"])
        return list(client.search_runs([experiment.experiment_id], wanted, order_by=["attributes.start_time DESC"]))

    def version_of(self, run_id: str) -> int | None:
        """The registered version of a run, or None."""
        found = self.client().search_model_versions(f"name = '{self.tracking.model}' and run_id = '{run_id}'")
        return max((int(version.version) for version in found), default=None)

    def register(self, bundle: "Bundle", folder: Path, tags: Mapping[str, Any], example: bytes) -> int:
        """Logs a saved bundle as a model of the active run and registers it; returns the version.

        The model is data and a loader module, so nothing is pickled.

        Args:
            folder: Where the bundle is saved; its last part is `BUNDLE`.
            tags: Of the version.
            example: An image file that shows MLflow's users what the model takes.
        """
        findings = Schema([ColSpec(DataType.double, finding) for finding in bundle.card.findings])
        info = mlflow.pyfunc.log_model(
            name="model",
            loader_module="chestai.model.pyfunc",
            data_path=str(folder),
            code_paths=[str(PACKAGE)],
            pip_requirements=[f"{name}=={version(name)}" for name in SERVING_NEEDS],
            signature=ModelSignature(Schema([ColSpec(DataType.binary, "image")]), findings),
            input_example=pd.DataFrame({"image": [example]}),
        )
        registered = mlflow.register_model(
            info.model_uri, self.tracking.model, tags={name: str(value) for name, value in tags.items()}
        )
        return int(registered.version)

    def champion(self) -> int | None:
        """The version that the alias `champion` points to, or None.

        Raises:
            MlflowException: The registry did not answer, which must not look like a missing champion.
        """
        try:
            return int(self.client().get_model_version_by_alias(self.tracking.model, CHAMPION).version)
        except MlflowException as error:
            if error.error_code in NOT_FOUND:
                return None
            raise

    def promote(self, version: int) -> None:
        """Moves the alias `champion` to a version, and remembers the one before it."""
        client, past = self.client(), self.champions()
        client.set_registered_model_alias(self.tracking.model, CHAMPION, str(version))
        self._set_champions([*(number for number in past if number != version), version])
        client.delete_model_version_tag(self.tracking.model, str(version), ROLLED_BACK)

    def champions(self) -> list[int]:
        """The versions that were champion, the current one last, without those that were rolled back."""
        model = self.client().get_registered_model(self.tracking.model)
        past = [int(number) for number in model.tags.get(CHAMPIONS, "").split(",") if number]
        current = self.champion()
        return past if current is None else [*(number for number in past if number != current), current]

    def history(self) -> list[Champion]:
        """The champions of `champions`, the current one first."""
        client, versions = self.client(), reversed(self.champions())
        found = [client.get_model_version(self.tracking.model, str(version)) for version in versions]
        return [Champion.of(version) for version in found]

    def model_card(self, version: int) -> str | None:
        """The page of a version's model card, as HTML; None if the version was never evaluated.

        Raises:
            UserError: There is no such version.
        """
        self.connect()
        place = self._tags(version).get(MODEL_CARD)
        return None if place is None else str(mlflow.artifacts.load_text(place))

    def rollback(self) -> tuple[int, int]:
        """Moves `champion` back to the version before the current one; returns both, the current one first.

        The gate will not promote a version again that was rolled back.

        Raises:
            UserError: There was no champion before this one.
        """
        past = self.champions()
        if len(past) < 2:
            raise UserError(
                f"model {self.tracking.model} had no champion before this one: there is nothing to go back to"
            )
        *kept, removed = past
        client = self.client()
        client.set_registered_model_alias(self.tracking.model, CHAMPION, str(kept[-1]))
        self._set_champions(kept)
        client.set_model_version_tag(self.tracking.model, str(removed), ROLLED_BACK, "true")
        return removed, kept[-1]

    def rolled_back(self, version: int) -> bool:
        """Whether the alias was taken from this version by a rollback."""
        return ROLLED_BACK in self._tags(version)

    def note_gate(self, version: int, refused: str) -> None:
        """Stores the verdict of the promotion gate: why the version was refused, or empty if it passed."""
        self.client().set_model_version_tag(self.tracking.model, str(version), GATE, refused or PASSED)

    def gate(self, version: int) -> str | None:
        """The verdict of the promotion gate on a version: `PASSED`, the reason for a refusal, or None if never asked.

        Raises:
            UserError: There is no such version.
        """
        return self._tags(version).get(GATE)

    def note_runtime(self, version: int, runtime: "Runtime", effect: "RuntimeEffect") -> None:
        """Stores the effect of a runtime on a version's probabilities."""
        tag = RUNTIME.format(runtime.engine, runtime.precision)
        self.client().set_model_version_tag(self.tracking.model, str(version), tag, effect.model_dump_json())

    def runtime(self, version: int, runtime: "Runtime") -> "RuntimeEffect | None":
        """The stored effect of a runtime on a version, or None if never measured."""
        from chestai.model.runtimes.effect import RuntimeEffect

        stored = self._tags(version).get(RUNTIME.format(runtime.engine, runtime.precision))
        return None if stored is None else RuntimeEffect.model_validate_json(stored)

    def _tags(self, version: int) -> dict[str, str]:
        try:
            return dict(self.client().get_model_version(self.tracking.model, str(version)).tags)
        except MlflowException as error:
            raise UserError(f"model {self.tracking.model} has no version {version} in {self.uri}") from error

    def _set_champions(self, versions: Sequence[int]) -> None:
        text = ",".join(str(version) for version in versions)
        self.client().set_registered_model_tag(self.tracking.model, CHAMPIONS, text)

    def load_all(self, which: str) -> list[RegisteredModel]:
        """Loads several versions at once, such as `3+5` or `champion+7`; raises as `load`."""
        return [self.load(part) for part in which.split("+")]

    def load(self, which: str) -> RegisteredModel:
        """Loads a registered model by version number or as `champion`.

        Raises:
            UserError: There is no such version, or no champion yet.
        """
        from chestai.model.bundle import Bundle

        self.connect()
        name = self.tracking.model
        version = self.champion() if which == CHAMPION else _number(which)
        if version is None:
            raise UserError(
                f"no champion of model {name} in {self.uri}: run `python -m pipelines.train` and "
                f"`python -m pipelines.evaluate` with lake={self.lake.root}"
            )
        try:
            local = mlflow.artifacts.download_artifacts(f"models:/{name}/{version}", tracking_uri=self.uri)
        except MlflowException as error:
            raise UserError(f"model {name} has no version {version} in {self.uri}") from error
        return RegisteredModel(name, version, Bundle.load(Path(local) / "data" / BUNDLE))

    def drift(self, version: int) -> DriftReference | None:
        """Loads the drift reference of a version, without its weights; None if it has none.

        Raises:
            MlflowException: There is no such version, or the registry did not answer.
            OSError, ValueError: The file cannot be read.
        """
        from chestai.model.bundle import DRIFT

        self.connect()
        folder = f"models:/{self.tracking.model}/{version}/data/{BUNDLE}"
        artifacts = mlflow.artifacts.list_artifacts(folder, tracking_uri=self.uri)
        if not any(Path(artifact.path).name == DRIFT for artifact in artifacts):
            return None
        local = mlflow.artifacts.download_artifacts(f"{folder}/{DRIFT}", tracking_uri=self.uri)
        return DriftReference.from_json(Path(local).read_text())


def _number(which: str) -> int:
    if not which.isdigit():
        raise UserError(f"model={which} is neither champion nor a version number")
    return int(which)
