"""The HTTP side of the endpoint: a plain FastAPI application over a model, which may be remote. Holds no model."""
