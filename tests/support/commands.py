"""Run our commands inside the test process: seconds faster than a process each, with the same code."""

import runpy
import signal
import subprocess
import sys
import warnings

import pytest


def run_command(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, module: str, *words: str
) -> subprocess.CompletedProcess[str]:
    """Run `python -m module words` and return its exit status and output. Signal handlers stay as they were."""
    handler, wakeup = signal.getsignal(signal.SIGTERM), signal.set_wakeup_fd(-1)
    capfd.readouterr()
    with (
        monkeypatch.context() as patch,
        # Commands redirect the descriptors; pytest's own streams would bypass them.
        open(1, "w", buffering=1, closefd=False) as stdout,
        open(2, "w", buffering=1, closefd=False) as stderr,
    ):
        patch.setattr(sys, "argv", [module, *words])
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(sys, "stderr", stderr)
        try:
            with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:
                warnings.simplefilter("ignore", RuntimeWarning)  # of a module that is imported already
                runpy.run_module(module, run_name="__main__", alter_sys=False)
        finally:
            signal.signal(signal.SIGTERM, handler)
            signal.set_wakeup_fd(wakeup)
    out, err = capfd.readouterr()
    status = ended.value.code
    return subprocess.CompletedProcess(words, status if isinstance(status, int) else 1, out, err)
