"""The JSON of the draft of a report."""

from typing import Literal

from chestai import RESEARCH_USE
from chestai.results.report_text.draft import Reason
from serve.schemas import examples
from serve.schemas.answer import Answer
from serve.schemas.examples import with_examples

EXAMPLE = (
    "Draft by research software, not a diagnosis.\n"
    "The model suggests a pneumothorax.\n"
    "The model finds no pleural effusion or mass."
)


class ReportResponse(Answer):
    """The draft of an image's impression, a sentence a line; the first says that it is a draft and no diagnosis.

    source: `template`, or `llm`: a language model worded it. reason: why the template stands although a language model
    was to be asked; else null. earlier_image_id: the earlier image of the patient whose scores it compares; null
    without one. languages: those that it can be written in, with their names.
    """

    model_config = with_examples(
        {
            "image_id": examples.IMAGE_ID,
            "status": "draft",
            "text": EXAMPLE,
            "language": "en",
            "source": "template",
            "reason": "timeout",
            "model_version": 3,
            "earlier_image_id": None,
            "languages": {"en": "English", "es": "Spanish"},
        }
    )

    image_id: str
    status: Literal["draft"] = "draft"
    text: str
    language: str
    source: Literal["template", "llm"]
    reason: Reason | None
    model_version: int
    earlier_image_id: str | None
    languages: dict[str, str]
    notice: str = RESEARCH_USE
