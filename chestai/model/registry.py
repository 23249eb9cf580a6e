"""Runs and the model registry: what is read from and written to MLflow, in one place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema

from chestai.config.schema import Tracking
from chestai.errors import UserError
from chestai.lake.lake import Lake
from chestai.model.bundle import DRIFT, Bundle
from chestai.model.runtimes import Runtime
from chestai.model.runtimes.effect import RuntimeEffect
from chestai.monitoring.drift import DriftReference
from chestai.phantom import encode, plan

CHAMPION = "champion"
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # how MLflow says: no such model, no such alias
CHAMPIONS = "champions"  # tag of the registered model: who was champion, oldest first
ROLLED_BACK = "rolled_back"  # tag of a version
GATE, PASSED = "gate", "passed"  # tag of a version: what the gate said
RUNTIME = "runtime_{}_{}"  # tag of a version: what a runtime does to its answers
BUNDLE = "bundle"  # artifact folder of a training run, and of a registered model

PACKAGE = Path(__file__).resolve().parents[1]
SERVING_NEEDS = (
    "torch",
    "timm",
    "safetensors",
    "opencv-python-headless",
    "numpy",
    "pydantic",
    "scikit-learn",
)


@dataclass(frozen=True)
class RegisteredModel:
    """A version in the registry and its bundle."""

    name: str
    version: int
    bundle: Bundle


@dataclass(frozen=True)
class Registry:
    """MLflow as one lake uses it: a server where `tracking.uri` names one, SQLite inside the lake by default."""

    tracking: Tracking
    lake: Lake

    @property
    def uri(self) -> str:
        """The tracking URI.

        Raises:
            UserError: the lake is remote and no server is named.
        """
        if self.tracking.uri is not None:
            return self.tracking.uri
        if not self.lake.local:
            raise UserError(f"tracking.uri is needed with the remote lake {self.lake.root}: name an MLflow server")
        return f"sqlite:///{self.lake.uri('mlflow', 'mlflow.db')}"

    def connect(self) -> mlflow.MlflowClient:
        """Point MLflow at the tracking URI, make the experiment if it is new, and return a client."""
        if self.tracking.uri is None:
            Path(self.lake.uri("mlflow")).mkdir(parents=True, exist_ok=True)
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_registry_uri(self.uri)
        client = mlflow.MlflowClient()
        if client.get_experiment_by_name(self.tracking.experiment) is None:
            location = None if self.tracking.uri else Path(self.lake.uri("mlflow", "artifacts")).as_uri()
            client.create_experiment(self.tracking.experiment, artifact_location=location)
        mlflow.set_experiment(self.tracking.experiment)
        return client

    def finished_runs(self, tags: Mapping[str, str]) -> list[Run]:
        """Finished runs that carry all these tags, newest first."""
        client = self.connect()
        experiment = client.get_experiment_by_name(self.tracking.experiment)
        assert experiment is not None
        wanted = [f"tags.`{name}` = '{value}'" for name, value in tags.items()]
        return list(
            client.search_runs(
                [experiment.experiment_id],
                " and ".join([*wanted, "attributes.status = 'FINISHED'"]),
                order_by=["attributes.start_time DESC"],
            )
        )

    def version_of(self, run_id: str) -> int | None:
        """The registered version that came from a run, None where there is none."""
        found = self.connect().search_model_versions(f"name = '{self.tracking.model}' and run_id = '{run_id}'")
        return max((int(version.version) for version in found), default=None)

    def register(self, bundle: Bundle, folder: Path, tags: Mapping[str, Any]) -> int:
        """Log the bundle saved in `folder` (its last part: `BUNDLE`) as a model of the active run; give its version.

        The model is its data and a loader module, so nothing is pickled. Its input example is a synthetic image.
        """
        phantom = next(image for image in plan(count=24, size=128, seed=0) if image.form == "grey")
        example = pd.DataFrame({"image": [encode(phantom)]})
        findings = Schema([ColSpec(DataType.double, finding) for finding in bundle.card.findings])
        info = mlflow.pyfunc.log_model(
            name="model",
            loader_module="chestai.model.pyfunc",
            data_path=str(folder),
            code_paths=[str(PACKAGE)],
            pip_requirements=[f"{name}=={version(name)}" for name in SERVING_NEEDS],
            signature=ModelSignature(Schema([ColSpec(DataType.binary, "image")]), findings),
            input_example=example,
        )
        registered = mlflow.register_model(
            info.model_uri, self.tracking.model, tags={name: str(value) for name, value in tags.items()}
        )
        return int(registered.version)

    def champion(self) -> int | None:
        """The version that the alias `champion` points to, None where there is none.

        Raises:
            MlflowException: the registry did not answer; that is no reason to make a new champion.
        """
        try:
            return int(self.connect().get_model_version_by_alias(self.tracking.model, CHAMPION).version)
        except MlflowException as error:
            if error.error_code in ABSENT:
                return None
            raise

    def promote(self, version: int) -> None:
        """Point the alias `champion` at a version, and remember the one before it."""
        client, past = self.connect(), self.champions()
        client.set_registered_model_alias(self.tracking.model, CHAMPION, str(version))
        self._remember([*(one for one in past if one != version), version])
        client.delete_model_version_tag(self.tracking.model, str(version), ROLLED_BACK)

    def champions(self) -> list[int]:
        """The versions that were champion, the present one last; without those that were rolled back."""
        model = self.connect().get_registered_model(self.tracking.model)
        past, holder = [int(one) for one in model.tags.get(CHAMPIONS, "").split(",") if one], self.champion()
        return past if holder is None else [*(one for one in past if one != holder), holder]

    def rollback(self) -> tuple[int, int]:
        """Point `champion` back at the version before the present one; give both, the present one first.

        The gate will not promote the one that was rolled back again.

        Raises:
            UserError: there was no champion before this one.
        """
        past = self.champions()
        if len(past) < 2:
            raise UserError(
                f"model {self.tracking.model} had no champion before this one: there is nothing to go back to"
            )
        *kept, left = past
        client = self.connect()
        client.set_registered_model_alias(self.tracking.model, CHAMPION, str(kept[-1]))
        self._remember(kept)
        client.set_model_version_tag(self.tracking.model, str(left), ROLLED_BACK, "true")
        return left, kept[-1]

    def rolled_back(self, version: int) -> bool:
        """Whether somebody took the alias from this version by hand."""
        return ROLLED_BACK in self._tags(version)

    def note_gate(self, version: int, refused: str) -> None:
        """Leave on the version what the gate said of it: why it was refused, empty for passed."""
        self.connect().set_model_version_tag(self.tracking.model, str(version), GATE, refused or PASSED)

    def gate(self, version: int) -> str | None:
        """What the gate said of a version: `PASSED`, why not, or None where it was never asked.

        Raises:
            UserError: there is no such version.
        """
        return self._tags(version).get(GATE)

    def note_runtime(self, version: int, runtime: Runtime, effect: RuntimeEffect) -> None:
        """Leave on the version what a runtime does to its answers."""
        tag = RUNTIME.format(runtime.engine, runtime.precision)
        self.connect().set_model_version_tag(self.tracking.model, str(version), tag, effect.model_dump_json())

    def runtime(self, version: int, runtime: Runtime) -> RuntimeEffect | None:
        """What `note_runtime` left on a version, None where it was never measured."""
        noted = self._tags(version).get(RUNTIME.format(runtime.engine, runtime.precision))
        return None if noted is None else RuntimeEffect.model_validate_json(noted)

    def _tags(self, version: int) -> dict[str, str]:
        try:
            return dict(self.connect().get_model_version(self.tracking.model, str(version)).tags)
        except MlflowException as error:
            raise UserError(f"model {self.tracking.model} has no version {version} in {self.uri}") from error

    def _remember(self, versions: Sequence[int]) -> None:
        text = ",".join(str(version) for version in versions)
        self.connect().set_registered_model_tag(self.tracking.model, CHAMPIONS, text)

    def load_all(self, which: str) -> list[RegisteredModel]:
        """Several versions at once, such as `3+5` or `champion+7`; raises as `load`."""
        return [self.load(part) for part in which.split("+")]

    def load(self, which: str) -> RegisteredModel:
        """A registered model by version number or as `champion`.

        Raises:
            UserError: there is no such version, or no champion yet.
        """
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
        """The drift reference of a version, without its weights; None where it has none.

        Raises:
            MlflowException: there is no such version, or the registry did not answer.
            OSError, ValueError: the file cannot be read.
        """
        self.connect()
        folder = f"models:/{self.tracking.model}/{version}/data/{BUNDLE}"
        listed = mlflow.artifacts.list_artifacts(folder, tracking_uri=self.uri)
        if not any(Path(one.path).name == DRIFT for one in listed):
            return None
        local = mlflow.artifacts.download_artifacts(f"{folder}/{DRIFT}", tracking_uri=self.uri)
        return DriftReference.from_json(Path(local).read_text())


def _number(which: str) -> int:
    if not which.isdigit():
        raise UserError(f"model={which} is neither champion nor a version number")
    return int(which)
