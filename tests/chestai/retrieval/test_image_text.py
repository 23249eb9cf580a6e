"""A tiny image-text model, from a folder written here."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from chestai.errors import UserError
from chestai.imaging import preprocess
from chestai.retrieval.image_text import CONFIG, ImageText
from tests.support.models import image

open_clip = pytest.importorskip("open_clip")

from tests.support.tiny_clip import SIZE, WIDTH, write_tiny_clip  # noqa: E402, it needs the optional package


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> ImageText:
    return ImageText.load(folder)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.stack([preprocess.load(image(number), SIZE) for number in range(4)])


def test_embeds_as_open_clip_does(folder: Path, model: ImageText, pixels: np.ndarray) -> None:
    assert (model.name, model.size) == ("tiny", SIZE)
    network = open_clip.create_model(f"local-dir:{folder}").eval()
    grey = (torch.from_numpy(pixels).float() / 255 - 0.5) / 0.25
    with torch.no_grad():
        images = network.encode_image(grey[:, None].expand(-1, 3, -1, -1), normalize=True).numpy()
        texts = network.encode_text(open_clip.tokenize(["a pacemaker", "edema"], 24), normalize=True).numpy()
    np.testing.assert_allclose(model.embed_images(pixels), images, atol=1e-5)
    np.testing.assert_allclose(model.embed_texts(["a pacemaker", "edema"]), texts, atol=1e-5)
    assert images.shape == (4, WIDTH) and np.linalg.norm(images[0] - images[1]) > 0.01


def test_tag_is_the_finding_against_its_denial(model: ImageText, pixels: np.ndarray) -> None:
    tags = model.tag(pixels[0], ("Edema", "Pleural_Thickening"))
    assert [*tags] == ["Edema", "Pleural_Thickening"]
    ours = model.embed_images(pixels[:1])[0]
    for finding, name in (("Edema", "edema"), ("Pleural_Thickening", "pleural thickening")):
        products = model.embed_texts([name, f"no {name}"]) @ ours * float(model.network.logit_scale.detach().exp())
        expected = torch.softmax(torch.from_numpy(products), 0)[0]
        assert tags[finding] == pytest.approx(float(expected), abs=1e-4) and 0 < tags[finding] < 1


def test_digest_is_of_configuration_and_weights(folder: Path, tmp_path: Path, model: ImageText) -> None:
    assert ImageText.load(Path(shutil.copytree(folder, tmp_path / "copy"))).digest == model.digest
    assert ImageText.load(write_tiny_clip(tmp_path / "other", seed=4)).digest != model.digest


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("none", "is no folder of an open_clip model"),
        ("config", "is no folder of an open_clip model"),
        ("weights", "has no weights"),
        ("other weights", "cannot be loaded"),
        ("hub", "needs microsoft/Bert from a hub, and nothing is downloaded"),
    ],
)
def test_unusable_folder_is_told_in_one_line(folder: Path, tmp_path: Path, damage: str, message: str) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "model"))
    if damage == "none":
        shutil.rmtree(copy)
    elif damage == "config":
        (copy / CONFIG).write_text("[]")
    elif damage == "weights":
        (copy / "open_clip_model.safetensors").unlink()
    elif damage == "other weights":
        (copy / "open_clip_model.safetensors").write_bytes(b"nothing")
    else:
        write_tiny_clip(copy, hf_model_name="microsoft/Bert")
    with pytest.raises(UserError, match=message) as error:
        ImageText.load(copy)
    assert "\n" not in str(error.value)
