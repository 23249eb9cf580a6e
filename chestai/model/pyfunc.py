"""The loader module of `mlflow.pyfunc.load_model`: image bytes in, calibrated probabilities out."""

from pathlib import Path

import pandas as pd

from chestai.imaging import preprocess
from chestai.model.bundle import Bundle


class Model:
    """Predicts a frame whose column `image` holds file bytes; returns one column per finding."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Raises `chestai.imaging.errors.Unreadable` for bytes that are not an image."""
        card = self.bundle.card
        images = [preprocess.load(data, card.size) for data in frame["image"]]
        return pd.DataFrame(self.bundle.predict(images).probabilities, columns=list(card.findings))


def _load_pyfunc(path: str) -> Model:
    return Model(Bundle.load(Path(path)))
