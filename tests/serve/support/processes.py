"""The same code in several processes at once."""

import subprocess
import sys

# One interpreter imports and forks: so the processes are at the same line at the same time.
FORKS = """
import os, sys, traceback
import serve.auth.bootstrap, serve.db.database, serve.db.audit
children = []
for number in range(int(sys.argv[3])):
    pid = os.fork()
    if pid == 0:
        try:
            exec(sys.argv[2], {"url": sys.argv[1], "number": number})
            sys.stdout.flush()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    children.append(pid)
sys.exit(max(os.waitpid(pid, 0)[1] != 0 for pid in children))
"""


def forked(code: str, url: str, count: int = 3) -> str:
    """What processes print that run `code` with `url` and their `number`, all at once; none may fail."""
    command = [sys.executable, "-c", FORKS, url, code, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
