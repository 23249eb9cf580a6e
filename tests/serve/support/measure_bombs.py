"""Sends each bomb to an application, and prints how much memory it took: MiB of this process and of its decoder.

`python -m tests.serve.support.measure_bombs FOLDER`. Prints JSON. Linux only.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
from PIL import Image

from tests.serve.support.forgery import save_image
from tests.serve.support.hostile import BOMBS, UPLOADS
from tests.serve.support.local import encode_form, local_app, send_request

ALL_FINDINGS = "/infer?explain=Effusion&explain=Mass&explain=Pneumothorax"


def process_ids() -> tuple[str, str]:
    """This process and its decoder: one request at a time needs no other."""
    (decoder,) = psutil.Process().children()
    return "self", str(decoder.pid)


def read_memory(field: str) -> list[int]:
    """Reads a field of /proc/PID/status of both processes, in MiB."""
    statuses = [Path(f"/proc/{pid}/status").read_text() for pid in process_ids()]
    return [int(status.partition(field)[2].split()[0]) // 1024 for status in statuses]


def measure_growth(call: Callable[[], object]) -> list[int]:
    """Returns how far the peak memory of both processes rises during a call."""
    for pid in process_ids():
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # resets the peak
    before = read_memory("VmRSS:")
    call()
    return [peak - start for peak, start in zip(read_memory("VmHWM:"), before, strict=True)]


def measure(folder: Path) -> dict[str, list[int]]:
    app = local_app(folder, gate=False)
    forms = {name: encode_form(("file", "bomb", "image/png", UPLOADS[name].data())) for name in BOMBS}
    large = save_image(Image.new("1", (10_000, 10_000)), "PNG")
    for name in ("dicom", "png called text"):  # start a decoder, and load what a first request loads
        assert send_request(app, "/infer?explain=Mass", [UPLOADS[name].data()]).status == 200
    growth = {
        name: measure_growth(partial(send_request, app, "/infer", [body], headers))
        for name, (body, headers) in forms.items()
    }
    growth["three overlays"] = measure_growth(lambda: send_request(app, ALL_FINDINGS, [large]))
    return growth


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
