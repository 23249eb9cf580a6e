"""The endpoint: a champion behind HTTP on Ray Serve. Imports `chestai`, never `pipelines`."""
