"""What every form tells its reader before the result."""

from chestai import RESEARCH_USE
from chestai.results.film_result import FilmResult

SYNTHETIC = "The model was trained on computer-drawn phantoms, not on X-rays of people."


def list_notices(result: FilmResult) -> list[str]:
    """The notice of research use, and whether the model knows phantoms only."""
    return [RESEARCH_USE, *([SYNTHETIC] if result.synthetic else [])]
