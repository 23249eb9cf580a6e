"""A reference that a model is compared with on the same images: a registered version, or predictions from a file."""

from pathlib import Path

from chestai.errors import UserError
from chestai.metrics.comparison import Comparison, compare_auroc
from chestai.model.bundle import assemble
from pipelines.cluster import ray_cluster
from pipelines.evaluation.context import EvaluationRun
from pipelines.evaluation.external_predictions import read_predictions
from pipelines.evaluation.leakage import check_leakage
from pipelines.inference.labelled_predictions import LabelledPredictions, align, predict_labelled


def compare_with_reference(run: EvaluationRun, evaluated: LabelledPredictions) -> dict[str, Comparison]:
    """Compares a model with `evaluate.reference`, by a paired bootstrap of patients; empty without a reference.

    The macro-AUROCs run over the findings that both predict and the images that both have. AUROC needs no calibration,
    which changes no ranking of one finding.

    Args:
        evaluated: The model's predictions of the split.

    Raises:
        UserError: The reference is no version and no file, was trained on patients of the split, or shares no finding
            or no image with the model.
    """
    which = run.config.evaluate.reference
    if which is None:
        return {}
    title, theirs = _predict(run, which)
    findings = [finding for finding in evaluated.findings if finding in theirs.findings]
    ours, theirs = align(evaluated, theirs)
    if not findings or not len(ours.targets):
        raise UserError(f"evaluate.reference={which} shares no finding or no {run.split} image with the model")
    own, other = ([side.findings.index(finding) for finding in findings] for side in (ours, theirs))
    return compare_auroc(
        ours.targets[:, own],
        theirs.logits[:, other],
        {f"reference {title}": ours.logits[:, own]},
        ours.patients,
        run.config.evaluate.bootstrap(),
    )


def _predict(run: EvaluationRun, which: str) -> tuple[str, LabelledPredictions]:
    settings = run.config.evaluate
    if Path(which).suffix == ".csv":
        predictions, _ = read_predictions(which, settings.reference_prefix, run.lake, run.snapshot)
        return Path(which).name, predictions.select_split(run.split)
    models = run.registry.load_all(which)
    title = f"version {'+'.join(str(model.version) for model in models)}"
    bundle = assemble([model.bundle for model in models])
    check_leakage(bundle, f"evaluate.reference={which}", run.lake, run.snapshot, [run.split])
    with ray_cluster(run.config.cluster):
        return title, predict_labelled(bundle, run.lake, run.snapshot, [run.split], settings.batch_size, run.screen)
