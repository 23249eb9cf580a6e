"""The gateway to a hospital's systems: films in from a PACS, results back into it."""
