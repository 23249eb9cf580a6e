"""The configuration as validated, frozen pydantic models."""

from typing import Any

from chestai.config.cluster import Cluster, SparkSettings, Tracking
from chestai.config.data import Chexpert, Dicom, Folders, Nih, Phantom, Sanity, Source, Split
from chestai.config.evaluation import Derive, Evaluate, Gate, Promote, Queue
from chestai.config.gateway import Destination, DicomListener, Gateway
from chestai.config.label_table import Table
from chestai.config.report_text import Llm, ReportText
from chestai.config.serving import (
    Alert,
    Auth,
    Index,
    Jwt,
    Modes,
    Oidc,
    Runtime,
    Score,
    Search,
    Serve,
    State,
    Tls,
    Triage,
)
from chestai.config.training import Asymmetric, Augment, Bce, Distil, Feed, Focal, Ldam, Loss, Network, Plan, Train
from chestai.config.tuning import Choice, Dimension, Range, Tune
from chestai.config.types import Section, View
from chestai.labels.uncertainty import Policy

__all__ = [
    "Alert",
    "Asymmetric",
    "Augment",
    "Auth",
    "Bce",
    "Chexpert",
    "Choice",
    "Cluster",
    "Config",
    "Destination",
    "Dicom",
    "DicomListener",
    "Dimension",
    "Distil",
    "Focal",
    "Folders",
    "Gate",
    "Gateway",
    "Index",
    "Jwt",
    "Ldam",
    "Llm",
    "Loss",
    "Modes",
    "Nih",
    "Oidc",
    "Plan",
    "Policy",
    "Range",
    "ReportText",
    "Runtime",
    "Sanity",
    "Score",
    "Search",
    "Source",
    "SparkSettings",
    "Split",
    "Table",
    "Tls",
    "Tracking",
    "Train",
    "Tune",
    "View",
]


class Config(Section):
    """The whole configuration; conf/config.yaml explains each key."""

    lake: str
    force: bool
    source: Source
    also: dict[str, Source]
    split: Split
    sanity: Sanity = Sanity()  # runs of earlier versions lack this section
    network: Network
    loss: Loss
    augment: Augment
    feed: Feed
    train: Train
    distil: Distil = Distil()
    plan: Plan = Plan()
    evaluate: Evaluate
    gate: Gate
    queue: Queue
    derive: Derive
    promote: Promote
    score: Score
    index: Index = Index()  # runs of earlier versions have neither this section nor the next two
    search: Search = Search()
    runtime: Runtime = Runtime()
    serve: Serve
    state: State = State()  # runs of earlier versions have neither this section nor the next three
    auth: Auth = Auth()
    gateway: Gateway = Gateway()
    report: ReportText = ReportText()
    triage: Triage
    tracking: Tracking
    tune: Tune
    phantom: Phantom
    cluster: Cluster

    @property
    def sources(self) -> list[Source]:
        """Returns all sources of a build, the main one first."""
        return [self.source, *self.also.values()]

    def plain(self) -> dict[str, Any]:
        """Returns nested dicts of plain values, to store or to send to workers."""
        return self.model_dump(mode="json")
