"""Each model's own pixels, and the traps around them that were measured."""

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import image_transform
from PIL import Image
from small_networks import FAMILIES
from torchvision.transforms.v2 import functional
from transformers import CLIPImageProcessor, ViTMAEModel

from encoders.preprocessing import RECIPES, prepare
from encoders.resize import resize
from encoders.table import Settings

SIZES = [(256, 256), (301, 200), (200, 601), (333, 500), (1000, 1001), (17, 40)]


def noise(height: int, width: int) -> np.ndarray:
    """Rough, so that one pixel's shift is tens of grey levels."""
    rng = np.random.Generator(np.random.Philox(key=height * 10000 + width))
    return rng.integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_clip_crops_as_open_clip_and_not_as_transformers(height: int, width: int) -> None:
    rgb = noise(height, width)
    channels = RECIPES["clip"].channels
    transform = image_transform(224, is_train=False, mean=channels.mean, std=channels.deviation)
    theirs_3HW = (
        transform(Image.fromarray(rgb)).numpy() * np.array(channels.deviation)[:, None, None] + np.array(channels.mean)[:, None, None]
    )
    ours_HW3 = prepare(rgb, RECIPES["clip"], 224)
    assert np.abs(ours_HW3 - np.moveaxis(theirs_3HW, 0, -1) * 255).max() <= 2.01  # noise enlarged 13 times in one case
    flags = {"do_normalize": False, "do_rescale": False, "return_tensors": "np"}
    of_transformers = np.moveaxis(CLIPImageProcessor()(Image.fromarray(rgb), **flags)["pixel_values"][0], 0, -1)
    leftover = max(height, width) * 224 // min(height, width) - 224
    # Half of 3, 7, 11, ... rounds to the even number above, and down in transformers.
    one_pixel_off = leftover % 4 == 3
    assert (np.abs(ours_HW3.astype(int) - of_transformers).max() > 10) == one_pixel_off


def test_the_sizes_above_meet_both_cases() -> None:
    leftovers = [max(size) * 224 // min(size) - 224 for size in SIZES]
    assert {leftover % 4 for leftover in leftovers} >= {0, 1, 3}


def test_a_siglip_of_open_clip_without_its_tag_takes_clips_pixels() -> None:
    """Why the mean, deviation and fit come from our table: as they would come from open_clip."""
    model = open_clip.create_model("ViT-B-16-SigLIP", load_weights=False, device="meta")
    untagged = model.visual.preprocess_cfg
    assert (untagged["resize_mode"], untagged["mean"]) == ("shortest", RECIPES["clip"].channels.mean)
    tagged = open_clip.get_pretrained_cfg("ViT-B-16-SigLIP", "webli")
    recipe = RECIPES["siglip"]
    assert (tagged["resize_mode"], tagged["interpolation"]) == (recipe.fit, recipe.interpolation)
    assert (tuple(tagged["mean"]), tuple(tagged["std"])) == (recipe.channels.mean, recipe.channels.deviation)
    openai = open_clip.get_pretrained_cfg("ViT-L-14", "openai")
    assert (tuple(openai["mean"]), tuple(openai["std"])) == (RECIPES["clip"].channels.mean, RECIPES["clip"].channels.deviation)
    assert openai["quick_gelu"]


def test_mae_sees_the_whole_image(tmp_path, pictures: list[np.ndarray]) -> None:
    small = FAMILIES["mae"](tmp_path / "mae")
    encoder = small.load(Settings(weights=str(small.folder), device="cpu"))
    images = np.stack([encoder.preprocess(rgb) for rgb in pictures[:2]])
    np.testing.assert_array_equal(encoder.embed(images), encoder.embed(images))
    assert encoder.tokens(images).shape == (2, 197, 48)
    masked = ViTMAEModel(small.load(Settings(weights=str(small.folder), device="cpu")).network.body.model.config)
    masked.config.mask_ratio = 0.75
    assert masked(torch.zeros(1, 3, 224, 224)).last_hidden_state.shape == (1, 50, 48)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_resize_is_pillows_up_to_rounding(interpolation: str) -> None:
    rgb = noise(480, 641)
    how = Image.Resampling.BICUBIC if interpolation == "bicubic" else Image.Resampling.BILINEAR
    expected = np.asarray(Image.fromarray(rgb).resize((300, 256), how)).astype(int)
    difference = np.abs(resize(rgb, height=256, width=300, interpolation=interpolation) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.02


def test_a_margin_grows_with_the_input_size() -> None:
    rgb = noise(700, 1000)
    recipe = RECIPES["dinov2"]
    ours = prepare(rgb, recipe, 518)
    assert ours.shape == (518, 518, 3)
    # 518 * 256 / 224 = 592; the long side 845.7 is rounded down; half of 592 - 518 and of 845 - 518 too.
    resized = functional.resize(
        torch.from_numpy(rgb).permute(2, 0, 1), [592, 845], interpolation=functional.InterpolationMode.BICUBIC, antialias=True
    )
    np.testing.assert_array_equal(ours, resized[:, 37 : 37 + 518, 163 : 163 + 518].permute(1, 2, 0).numpy())
