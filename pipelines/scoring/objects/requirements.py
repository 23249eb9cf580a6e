"""What must be there before films are scored for DICOM objects or FHIR Bundles."""

from importlib.util import find_spec

from chestai.config.schema import Score
from chestai.errors import UserError
from chestai.lake.files import locate
from pipelines.scoring.corpus import LAKE

NEEDED = {"dicom_out": "highdicom", "fhir_out": "fhir.resources"}  # key -> package of the dependency group `gateway`


def check_requirements(settings: Score) -> None:
    """Looks for the packages that the settings need, without importing them.

    Raises:
        UserError: One is missing, or the objects would lie in the corpus, and the next run would score them.
    """
    for key, package in NEEDED.items():
        if getattr(settings, key) is not None and not _is_installed(package):
            raise UserError(f"score.{key} needs {package}: pip install --group gateway")
    if settings.dicom_out is not None and settings.corpus != LAKE:
        folder, corpus = locate(settings.dicom_out), locate(settings.corpus)
        if f"{folder}/".startswith(f"{corpus}/"):
            raise UserError(f"score.dicom_out={settings.dicom_out} lies in the corpus: name a folder beside it")


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # the package around it
        return False
