"""The research-use notice that every page, response and model carries."""

RESEARCH_USE = "Research software, not a medical device: not for diagnosis or clinical decisions."
