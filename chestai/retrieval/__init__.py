"""Search among images that a model has scored: by likeness of their embeddings, by findings, within filters."""
