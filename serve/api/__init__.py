"""The HTTP side of the endpoint: a FastAPI application that needs no Ray and holds no model."""
