"""Several rows of an image become one: by all its rows, or by what enough of its readers say."""

import numpy as np
import pandas as pd

from pipelines.spark.sources.label_table.labels import NEGATIVE, POSITIVE, UNCERTAIN, UNKNOWN


def merge_rows(
    images: pd.Series, codes: np.ndarray, readers: pd.Series | None, agree: int
) -> tuple[np.ndarray, np.ndarray]:
    """Merge the labels of rows with the same image.

    A finding that `agree` readers name is positive. One that fewer name, or that a reader finds uncertain, is
    uncertain. Else it is negative if a row says so, and otherwise unknown.

    Args:
        images: The image of each row.
        codes: int8, rows x findings, as in `labels.RowLabels`.
        readers: The reader of each row, empty for a row on which they agreed; None: all rows are of one reader.

    Returns:
        The image of each row as a number from 0 in order of appearance, and the codes per image.
    """
    numbers, found = pd.factorize(images)
    who = np.zeros(len(numbers), np.int64) if readers is None else pd.factorize(readers)[0]
    people = int(who.max(initial=0)) + 1
    settled = np.ones(len(numbers), bool) if readers is None else (readers == "").to_numpy()
    merged = np.full((len(found), codes.shape[1]), UNKNOWN, np.int8)
    for at in range(codes.shape[1]):
        column = codes[:, at]
        named = np.unique(numbers[column == POSITIVE] * people + who[column == POSITIVE]) // people
        votes = np.bincount(named, minlength=len(found))
        votes += agree * np.bincount(numbers[(column == POSITIVE) & settled], minlength=len(found))
        doubts = np.bincount(numbers[column == UNCERTAIN], minlength=len(found))
        denials = np.bincount(numbers[column == NEGATIVE], minlength=len(found))
        choices = [votes >= agree, (votes > 0) | (doubts > 0), denials > 0]
        merged[:, at] = np.select(choices, [POSITIVE, UNCERTAIN, NEGATIVE], UNKNOWN)
    return numbers, merged
