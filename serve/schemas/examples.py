"""Values that the examples of several schemas share, for the OpenAPI document."""

from typing import Any

from pydantic import ConfigDict

from chestai import RESEARCH_USE

TIME = "2025-01-31T12:00:00Z"
IMAGE_ID = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
FILE_NAME = "00000088_000.png"
PROBABILITIES = {"Effusion": 0.12, "Mass": 0.07, "Pneumothorax": 0.91}
THRESHOLDS = {"Effusion": 0.4, "Mass": 0.3, "Pneumothorax": 0.5}
CONFIDENCE = {
    "Effusion": {"low": 0.08, "high": 0.15, "n": 412},
    "Mass": {"low": 0.04, "high": 0.09, "n": 655},
    "Pneumothorax": None,
}
LABEL_SETS = {"error_rate": 0.1, "findings": {"Effusion": "both", "Mass": "absent", "Pneumothorax": "present"}}
SNAPSHOT = "20250131T120000-4f2a"
MODEL = {"name": "chestai", "version": 3, "snapshot": SNAPSHOT, "synthetic": True, "runtime": "openvino fp32"}


def with_examples(*examples: dict[str, Any]) -> ConfigDict:
    """Creates the config of a schema with examples; the notice is added to each."""
    return ConfigDict(json_schema_extra={"examples": [{**example, "notice": RESEARCH_USE} for example in examples]})
