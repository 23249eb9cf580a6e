"""ChestAI's domain library: pure chest X-ray code that imports neither Ray nor Spark."""

RESEARCH_USE = "Research software, not a medical device: not for diagnosis or clinical decisions."
"""The notice that every page, response, model and result carries."""
