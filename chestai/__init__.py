"""ChestAI's domain library: pure chest X-ray code that imports neither Ray nor Spark."""
