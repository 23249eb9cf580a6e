"""The offline stages: phantom, etl, train, evaluate, score, and `run`, which chains them."""
