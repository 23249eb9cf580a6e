"""A search request as a query of the library, as far as the display modes allow it."""

from dataclasses import dataclass, replace
from typing import Any

from chestai.config.schema import Modes
from chestai.errors import UserError
from chestai.retrieval.filters import Filters
from chestai.retrieval.query import Query
from chestai.retrieval.text_query import TextQuery, parse_text_query
from serve.problems import ApiError
from serve.schemas.operations import ModelCard
from serve.schemas.search import ReadText, SearchFilters, SearchRequest

FILTERS = ("labelled", "called", "not_called", "bucket", "view", "sex", "split", "min_age", "max_age")


@dataclass(frozen=True)
class ReadRequest:
    """A request that was read.

    Attributes:
        query: Without the image.
        text: How the text was read; None without one.
        beyond: A text that the image-text model must answer; None: findings and filters are all of it.
    """

    query: Query
    text: TextQuery | None = None
    beyond: str | None = None

    def describe_text(self) -> ReadText | None:
        """How the text was read, for the response."""
        if self.text is None:
            return None
        text = self.text
        return ReadText(
            language=text.language,
            present=[*text.present],
            absent=[*text.absent],
            filters=str(text.filters),
            outside=[*text.outside],
        )


def read_request(
    request: SearchFilters, card: ModelCard, modes: Modes, with_image: bool, with_image_text: bool = False
) -> ReadRequest:
    """Reads a request.

    Args:
        card: Of the version whose library is searched.
        with_image: Whether it also has an image.
        with_image_text: Whether an image-text model answers texts outside the vocabulary that have no image.

    Raises:
        ApiError: 403, it would tell hidden findings; 422, it asks for nothing, for what the model does not know, or
            contradicts itself.
    """
    given: dict[str, Any] = {name: getattr(request, name) for name in FILTERS}
    given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    filters = Filters(**given)
    read = ReadRequest(Query(filters=filters, count=request.count))
    try:
        if isinstance(request, SearchRequest) and request.text is not None:
            text = parse_text_query(request.text, card.findings, request.language)
            beyond = request.text if text.outside and with_image_text and not with_image else None
            read = _add_text(read, text) if beyond is None else replace(read, text=text, beyond=beyond)
        query = read.query
        if (
            with_image
            or read.beyond is not None
            or query.present
            or query.absent
            or query.filters != Filters()
            or request.reviewed is not None
        ):
            _check_modes(modes, query, with_image)
            points = {finding: card.thresholds.get(finding) for finding in card.findings}
            query.filters.merge(Filters(called=query.present, not_called=query.absent) if with_image else Filters())
            query.filters.check(points)
            return read
    except UserError as error:
        raise ApiError(422, "invalid_search", str(error)) from error
    raise ApiError(422, "invalid_search", "nothing to search by: send an image, a text or a filter")


def _add_text(read: ReadRequest, text: TextQuery) -> ReadRequest:
    if text.outside:
        raise ApiError(422, "outside_vocabulary", f"not in this model's vocabulary: {', '.join(text.outside)}")
    filters = read.query.filters.merge(text.filters)
    return ReadRequest(replace(read.query, present=text.present, absent=text.absent, filters=filters), text)


def _check_modes(modes: Modes, query: Query, with_image: bool) -> None:
    """Raises ApiError (403) if hits, or their order, would tell findings that are hidden."""
    filters = query.filters
    asks = query.present or query.absent or filters.labelled or filters.called or filters.not_called
    if modes.flag_only and (asks or not with_image):
        detail = "this endpoint hides findings, so it searches by an image alone, within other filters (serve.modes)"
        raise ApiError(403, "flags_only", detail)
