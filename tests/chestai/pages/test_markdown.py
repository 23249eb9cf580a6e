"""Pages as Markdown, read back by an independent parser."""

from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from chestai import RESEARCH_USE
from chestai.pages.markdown import escape_markdown, render_markdown
from chestai.pages.page import Cell, Figure, Gallery, Note, Page, Picture, Section, Table

PARSER = MarkdownIt("commonmark").enable("table").enable("strikethrough")
TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("|\\`*_~[](){}<>#!&;:+-=$1. \t\n"))


def extract_text(inline: Token) -> str:
    """The text of a block that must hold nothing but text."""
    assert {child.type for child in inline.children or []} <= {"text", "text_special"}
    return "".join(child.content for child in inline.children or [])


def read_cells(text: str) -> list[list[str]]:
    """The rows of all tables."""
    rows: list[list[str]] = []
    for token, inner in zip(tokens := PARSER.parse(text), tokens[1:], strict=False):
        if token.type == "tr_open":
            rows.append([])
        if token.type in ("th_open", "td_open"):
            rows[-1].append(extract_text(inner))
    return rows


def render(*parts: Note | Table | Figure | Gallery, banner: str = "", facts: Sequence[tuple[str, str]] = ()) -> str:
    return render_markdown(Page("Title", "Subtitle", facts, banner, [Section("one", "One", parts)]))


@settings(deadline=None, max_examples=300)
@given(TEXT)
@example("1. one")
@example("1)")
@example("--- # not a heading")
@example("[a](http://b) ![c](d) [e]: f [g][h]")
@example("&lt;b&gt; <b> &amp;")
def test_escaped_text_is_read_back_unchanged(text: str) -> None:
    plain = " ".join(text.split())
    tokens = PARSER.parse(escape_markdown(text))
    assert [token.type for token in tokens] == (["paragraph_open", "inline", "paragraph_close"] if plain else [])
    assert not plain or extract_text(tokens[1]) == plain


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4))
def test_table_is_read_back_unchanged(rows: list[tuple[str, str]]) -> None:
    found = read_cells(render(Table("caption", ["a", "b"], rows)))
    assert found == [["a", "b"], *([" ".join(text.split()) for text in row] for row in rows)]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (Cell("0.812", "[0.801, 0.823]", shade=0.5), "0.812 [0.801, 0.823]"),
        (Cell("12", "98.0%", bar=0.3), "12 (98.0%)"),
        (Cell("7"), "7"),
    ],
)
def test_note_of_a_cell_follows_its_text(cell: Cell, text: str) -> None:
    assert read_cells(render(Table("", ["a", "b"], [["x", cell]])))[1] == ["x", text]


def test_numbers_are_aligned_right_and_sentences_left() -> None:
    assert "| :-- | --: |" in render(Table("c", ["a", "b"], [["1", "2"]]))
    assert "| :-- | :-- |" in render(Table("c", ["a", "b"], [["1", "2"]], prose=True))


def test_pictures_are_described_in_words() -> None:
    figure = Figure("data:image/png;base64,AAAA", "What the plot shows", "Its caption")
    gallery = Gallery("Films", [Picture("data:x", "a film", ["id_1", "train"])], "two of them")
    text = render(figure, gallery)
    assert "data:" not in text
    for phrase in (
        "*Figure: What the plot shows*",
        "Its caption",
        "**Films**",
        "two of them",
        r"- a film, id\_1, train",
    ):
        assert phrase in text


def test_markdown_has_title_banner_facts_and_notice() -> None:
    text = render(Note("A note."), banner="SYNTHETIC: <phantoms>", facts=[("Images", "1,200")])
    kinds = [token.type for token in PARSER.parse(text) if token.type.endswith("_open")]
    assert kinds[0] == "heading_open" and "blockquote_open" in kinds
    assert text.startswith("# Title\n\nSubtitle\n\n> **SYNTHETIC: &lt;phantoms&gt;**\n\n")
    assert ["Images", "1,200"] in read_cells(text) and f"*{RESEARCH_USE}*" in text
    assert text.endswith("## One\n\nA note.\n") and ">" not in render(Note("A note."))
