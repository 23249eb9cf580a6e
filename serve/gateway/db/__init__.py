"""The gateway's records: films, and what goes out about them."""
