"""What every form tells its reader before the result."""

from collections.abc import Sequence

from chestai import RESEARCH_USE
from chestai.results.film_result import FilmResult

SYNTHETIC = "The model was trained on computer-drawn phantoms, not on X-rays of people."


def list_notices(results: Sequence[FilmResult]) -> list[str]:
    """The notice of research use, and whether the model knows phantoms only."""
    return [RESEARCH_USE, *([SYNTHETIC] if any(result.synthetic for result in results) else [])]
