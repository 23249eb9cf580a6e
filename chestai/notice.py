"""The notice on every page, response and model."""

RESEARCH_USE = "Research software, not a medical device: not for diagnosis or clinical decisions."
