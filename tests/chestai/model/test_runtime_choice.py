"""Which runtime and precision is chosen, and what is refused."""

from pathlib import Path

import pytest
import torch

from chestai.errors import UserError
from chestai.model.classifier import Classifier
from chestai.model.runtimes import Precision, Runtime, exports_folder, open_session
from chestai.model.runtimes.precision import resolve_precision

# Precision


@pytest.mark.parametrize(
    ("device", "bf16", "auto"),
    [("cpu", True, "bf16"), ("cpu", False, "fp32"), ("cuda", True, "bf16"), ("cuda", False, "fp16")],
)
def test_auto_chooses_by_hardware(device: str, bf16: bool, auto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    place = torch.device(device)
    assert resolve_precision("auto", place) == auto and resolve_precision("fp32", place) == "fp32"
    possible: dict[Precision, bool] = {"bf16": bf16, "fp16": device == "cuda"}
    for precision, can in possible.items():
        if can:
            assert resolve_precision(precision, place) == precision
        else:
            with pytest.raises(UserError, match=rf"^precision={precision} needs .* auto$"):
                resolve_precision(precision, place)


def test_auto_is_openvino_on_a_cpu(network: Classifier, exported: Path) -> None:
    assert open_session(network, Runtime("auto"), cache=exported.parent, threads=1).name == "openvino fp32"


def test_exports_are_in_the_user_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert exports_folder() == tmp_path / "chestai" / "exports"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert exports_folder() == Path.home() / ".cache" / "chestai" / "exports"
