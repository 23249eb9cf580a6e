"""Who asks, and what they may. Stands on `serve.state`; knows no HTTP."""
