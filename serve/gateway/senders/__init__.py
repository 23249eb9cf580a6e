"""Senders of results: one file for each protocol, with the same two errors."""
