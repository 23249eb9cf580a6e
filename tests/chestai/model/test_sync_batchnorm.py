"""Two real processes that share batches, against one process that has them whole."""

from pathlib import Path

import pytest
import timm
import torch
import torch.distributed as dist
import torch.multiprocessing
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from chestai.model.sync_batchnorm import synchronise

SHARES = (slice(0, 4), slice(4, 7))
ALL_BUT_ONE = (slice(0, 7), slice(7, 7))


class Norms(nn.Module):
    """Both kinds of BatchNorm, with the rarer settings."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 3, kernel_size=3, bias=False)
        self.first = nn.BatchNorm2d(3, momentum=None)
        self.second = BatchNormAct2d(3, eps=1e-3, act_layer=nn.LeakyReLU)
        self.third = nn.BatchNorm2d(3, affine=False, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mix(x)
        outputs = [self.first(mixed), self.second(mixed)]
        if self.training:  # without running statistics it has nothing to share in evaluation
            outputs.append(self.third(mixed + 100))  # a mean far above the variance
        return torch.cat(outputs, dim=1).flatten(1)


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(1)
    # densenet in float64: in float32 rounding alone changes some of its gradients by 5 %, whoever computes them
    return {"densenet": timm.create_model("densenet121", in_chans=1, num_classes=3).double(), "norms": Norms()}


def batches() -> dict[str, tuple[Tensor, Tensor]]:
    """Images and the weights of each output in the loss."""
    random = torch.Generator().manual_seed(2)
    spread = torch.linspace(0.1, 9, 7).view(-1, 1, 1, 1)  # so that the shares have other statistics than the whole
    return {
        "densenet": (
            spread.double() * torch.randn(7, 1, 48, 48, dtype=torch.float64, generator=random),
            torch.randn(7, 3, dtype=torch.float64, generator=random),
        ),
        "norms": (spread * torch.randn(7, 3, 5, 5, generator=random), torch.randn(7, 81, generator=random)),
    }


def trained(network: nn.Module, images: Tensor, weights: Tensor, factor: float) -> dict[str, Tensor]:
    """Two passes: outputs, gradients and the network's state, then the outputs in evaluation mode."""
    inner = network.module if isinstance(network, DistributedDataParallel) else network
    network(images)
    outputs = network(images)
    (factor * (weights * outputs.square()).sum()).backward()
    result = {"outputs": outputs.detach()}
    result |= {f"gradient of {name}": value.grad for name, value in inner.named_parameters() if value.grad is not None}
    result |= {f"state {name}": value.clone() for name, value in inner.state_dict().items()}
    return result | {"evaluated": network.eval()(images).detach()}


def work(rank: int, folder: str) -> None:
    """One of two workers; leaves its results in the folder."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    results = {}
    for shares in (SHARES, ALL_BUT_ONE):
        for name, network in networks().items():
            if shares is ALL_BUT_ONE and name == "densenet":
                continue
            images, weights = batches()[name]
            model = DistributedDataParallel(synchronise(network, "cpu"))
            results[f"{name} {shares[1].start}"] = trained(
                model, images[shares[rank]], weights[shares[rank]], factor=2 / len(images)
            )
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    """The results of both workers."""
    folder: Path = tmp_path_factory.mktemp("gloo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        torch.multiprocessing.spawn(work, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize(("case", "tolerance"), [("densenet 4", 1e-7), ("norms 4", 1e-4), ("norms 7", 1e-4)])
def test_two_workers_equal_one_process(shared: list[dict[str, dict[str, Tensor]]], case: str, tolerance: float) -> None:
    name = case.split()[0]
    images, weights = batches()[name]
    alone = trained(networks()[name], images, weights, factor=1 / len(images))
    first, second = (results[case] for results in shared)
    assert list(first) == list(second) == list(alone)  # with the same names of parameters and buffers
    for key, expected in alone.items():
        if key in ("outputs", "evaluated"):
            both = torch.cat([first[key], second[key]])
        else:
            assert torch.equal(first[key], second[key]), key
            both = first[key]
        off, size = float((both - expected).double().norm()), float(expected.double().norm())
        assert off <= tolerance * size + 1e-6, f"{key}: off by {off} of {size}"


def test_statistics_of_one_share_differ_from_the_batch() -> None:
    """The reference above is sensitive to what statistics are used."""
    images, _ = batches()["norms"]
    network = networks()["norms"]
    whole = network(images)
    assert (torch.cat([network(images[share]) for share in SHARES]) - whole).abs().max() > 0.1


def test_single_process_keeps_its_network() -> None:
    network = nn.Sequential(nn.BatchNorm2d(2))
    assert synchronise(network, "cpu") is network and type(network[0]) is nn.BatchNorm2d
