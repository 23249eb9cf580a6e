"""The precision of a forward pass, by the hardware."""

from typing import Literal

import torch

from chestai.config import schema
from chestai.errors import UserError

Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]
Resolved = Literal["fp32", "bf16", "fp16", "int8"]


def list_candidates(section: schema.Runtime, device: torch.device) -> list[Precision]:
    """Lists the precisions to try for a config, fastest first; `fastest` ends with fp32, which needs no check.

    Raises:
        UserError: int8 is asked for where OpenVINO does not run.
    """
    has_int8 = device.type == "cpu" and section.engine != "torch" and not section.compile
    if section.precision == "int8" and not has_int8:
        raise UserError("runtime.precision=int8 needs OpenVINO on a CPU: take runtime.precision=fastest")
    if section.precision != "fastest":
        return [section.precision]
    fast: list[Precision] = [resolve_precision("auto", device), "fp32"]
    return list(dict.fromkeys(["int8", *fast] if has_int8 else fast))


def resolve_precision(precision: Precision, device: torch.device) -> Resolved:
    """Resolves `auto` and checks a precision against the hardware.

    fp32 is the reference; on CUDA its convolutions may round inputs to TF32, as `torch.backends.cudnn` says. bf16 and
    fp16 multiply in 16 bits and sum up in fp32. `auto` is the fastest precision without emulation: bf16
    on CPUs with AVX512-BF16 (all with AMX have it) and on GPUs from Ampere; fp16 on older GPUs; fp32 on other CPUs.
    int8 is for CPUs, and for networks that `chestai.model.runtimes.quantisation` has quantised.

    The effect of bf16 on probabilities depends on the network and has no bound. Two DenseNet-121 trained on phantoms:
    0.001 in the mean, 0.016 at most (128 images, 14 findings). A random network whose logits were stretched to a
    standard deviation of 2, which magnifies rounding: 0.067 at most. Measure it on val before relying on it. fp16 has
    not been measured.

    Raises:
        UserError: the hardware cannot, or only by emulation, which is slower than fp32.
    """
    if device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        fast: Resolved = "bf16" if has_bf16 else "fp16"
    else:
        has_bf16 = torch.cpu._is_avx512_bf16_supported()
        fast = "bf16" if has_bf16 else "fp32"
    if precision == "auto":
        return fast
    if precision == "int8" and device.type == "cuda":
        raise UserError(f"precision=int8 is for CPUs: on the GPU take {fast} or auto")
    if precision == "fp16" and device.type != "cuda":
        raise UserError("precision=fp16 needs a GPU: on the CPU take bf16, fp32 or auto")
    if precision == "bf16" and not has_bf16:
        raise UserError(f"precision=bf16 needs hardware that this {device.type} has not: take {fast} or auto")
    return precision
