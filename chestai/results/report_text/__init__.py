"""Findings as sentences: a draft of a report's impression in several languages, and the way back from text.

A language is a file in `languages/`. `impression` writes, `parser` reads, `llm` asks a language model to reword.
"""
