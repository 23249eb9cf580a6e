"""What every page, answer and model of ChestAI says of itself."""

RESEARCH_USE = "Research software, not a medical device: not for diagnosis or clinical decisions."
