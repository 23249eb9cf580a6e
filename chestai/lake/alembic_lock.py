"""A lock for Alembic: both MLflow's tables and the endpoint's are made by it, and it has one context for a process.

Two migrations at once would each run on whichever connection was set last, even if they are of different databases.
"""

import threading

ALEMBIC_LOCK = threading.Lock()
