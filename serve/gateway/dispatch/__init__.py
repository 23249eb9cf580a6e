"""Results on their way out: made, queued, and sent to each destination in order."""
