"""What the endpoint remembers, in SQLite or PostgreSQL. Imports `chestai` alone: neither Ray nor the endpoint."""
