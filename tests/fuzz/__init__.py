"""Seeded fuzzing of what strangers send: `make fuzz MINUTES=20`."""
