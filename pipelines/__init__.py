"""The offline stages: phantom, etl, train, evaluate, score, and the run that chains them."""
