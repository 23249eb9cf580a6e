"""The endpoint: serves the champion over HTTP on Ray Serve. Imports `chestai`, never `pipelines`."""
