"""Helpers for tests that read rendered pages."""

import re
from html import unescape


def extract_text(html: str) -> str:
    """The visible text of a page on one line."""
    body = re.sub(r"<style>.*?</style>", "", html, flags=re.S)
    return unescape(" ".join(re.sub(r"<[^>]*>", " ", body).split()))


def assert_loads_nothing(html: str) -> None:
    """Fail if the page has a script or refers to anything outside of it."""
    for forbidden in ("http://", "https://", "<script", "<link", "<iframe", "@import", "url("):
        assert forbidden not in html.lower()
    assert set(re.findall(r'(?:src|srcset|href|data|poster)="(#|data:|[^"]{1,20})', html)) <= {"#", "data:"}
