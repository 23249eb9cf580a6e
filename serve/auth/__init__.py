"""Who asks, and what they may. Stands on `serve.db`; knows no HTTP."""
