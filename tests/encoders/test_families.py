"""What holds for every family in torch, on small random checkpoints of the true architecture that the family's own library wrote."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from small_networks import FAMILIES, Small

from encoders import embed_all
from encoders.table import Settings
from encoders.torch_encoder import TorchEncoder


@pytest.fixture(scope="module", params=FAMILIES)
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A checkpoint of each family in turn."""
    return FAMILIES[request.param](tmp_path_factory.mktemp(request.param) / "checkpoint")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks gain nothing from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def encoder(small: Small) -> TorchEncoder:
    """The encoder on it, float32 on the CPU."""
    return load(small)


def load(small: Small, **settings: object) -> TorchEncoder:
    return small.load(Settings(weights=str(small.folder), **({"device": "cpu"} | settings)))


def test_pixels_and_vectors_are_those_of_the_familys_own_library(small: Small, encoder: TorchEncoder, photos: list[np.ndarray]) -> None:
    photos = photos[:4]
    images = [encoder.preprocess(rgb) for rgb in photos]
    vector_ND = embed_all(encoder, images, batch_size=4)
    mean_3, deviation_3 = encoder.network.mean_C11.numpy(), encoder.network.deviation_C11.numpy()
    for image, rgb, vector_D in zip(images, photos, vector_ND, strict=True):
        pixels_CHW, expected_D = small.own(rgb)
        theirs_HW3 = np.moveaxis(pixels_CHW * deviation_3 + mean_3, 0, -1) * 255
        # One grey level where Pillow's fixed point rounds otherwise, half of one where a library never rounds to 8 bits.
        assert np.abs(image - theirs_HW3).max() <= 1.01
        assert np.abs(image - theirs_HW3).mean() < (0.3 if small.name.startswith("dinov3") else 0.01)
        assert vector_D @ (expected_D / np.linalg.norm(expected_D)) >= 0.9999
    cosine = (vector_ND @ vector_ND.T)[np.triu_indices(len(photos), 1)]
    assert np.median(cosine) < 0.99  # else the comparison above says little


def test_interface(small: Small, encoder: TorchEncoder, pictures: list[np.ndarray]) -> None:
    images = np.stack([encoder.preprocess(rgb) for rgb in pictures[:3]])
    assert (images.shape, images.dtype, encoder.input_size) == ((3, 224, 224, 3), np.uint8, 224)
    vector_BD, tokens_BNC = encoder.embed(images), encoder.tokens(images)
    assert (vector_BD.shape, vector_BD.dtype, tokens_BNC.dtype) == ((3, encoder.width), np.float32, np.float32)
    assert tokens_BNC.shape[:2] == (3, small.tokens)
    np.testing.assert_allclose(np.linalg.norm(vector_BD, axis=1), 1, atol=1e-6)
    if small.cls_token:
        cls_BD = tokens_BNC[:, 0]
        np.testing.assert_allclose(vector_BD, cls_BD / np.linalg.norm(cls_BD, axis=1, keepdims=True), atol=1e-6)


def test_batch_mates_order_and_size_do_not_matter(encoder: TorchEncoder, pictures: list[np.ndarray]) -> None:
    images = [encoder.preprocess(rgb) for rgb in pictures[:8]]
    vector_ND = embed_all(encoder, images, batch_size=4)
    for mates in ([3, 4, 5], [6, 6, 6]):  # the same row of a batch of the same size
        np.testing.assert_array_equal(encoder.embed(np.stack([images[number] for number in [0, *mates]]))[0], vector_ND[0])
    np.testing.assert_array_equal(embed_all(encoder, images[:5], batch_size=4), vector_ND[:5])
    np.testing.assert_allclose(embed_all(encoder, images[::-1], batch_size=4)[::-1], vector_ND, atol=1e-5)
    for size in (1, 3, 8):
        np.testing.assert_allclose(embed_all(encoder, images, batch_size=size), vector_ND, atol=1e-5)


def test_bfloat16_stays_near_and_has_its_own_digest(small: Small, encoder: TorchEncoder, pictures: list[np.ndarray]) -> None:
    half = load(small, dtype="bfloat16")
    images = [encoder.preprocess(rgb) for rgb in pictures[:8]]
    vector_ND, half_ND = embed_all(encoder, images, batch_size=4), embed_all(half, images, batch_size=4)
    assert (vector_ND * half_ND).sum(1).min() > 0.999
    assert np.abs(vector_ND - half_ND).max() > 1e-4  # it did run otherwise
    assert half_ND.dtype == half.tokens(np.stack(images[:1])).dtype == np.float32
    assert half.digest == encoder.digest | {"dtype": "bfloat16"}
    for size in (1, 8):
        assert (embed_all(half, images, batch_size=size) * half_ND).sum(1).min() > 0.9995


def test_other_input_sizes(small: Small, encoder: TorchEncoder, pictures: list[np.ndarray]) -> None:
    side = 224 + 2 * small.patch
    larger = load(small, input_size=side)
    image = larger.preprocess(pictures[0])
    assert image.shape == (side, side, 3)
    vector_BD, tokens_BNC = larger.embed(image[None]), larger.tokens(image[None])
    places = (side // small.patch) ** 2
    assert tokens_BNC.shape[1] - places == small.tokens - (224 // small.patch) ** 2
    assert larger.digest == encoder.digest | {"input_size": str(side)}
    assert 0.5 < float(vector_BD[0] @ encoder.embed(encoder.preprocess(pictures[0])[None])[0]) < 0.99999


def test_features_are_the_tensors_behind_embed_and_a_trainer_can_use_them(encoder: TorchEncoder, pictures: list[np.ndarray]) -> None:
    images = np.stack([encoder.preprocess(rgb) for rgb in pictures[:2]])
    vector_BD, tokens_BNC = encoder.features(torch.from_numpy(images).to(encoder.device))
    np.testing.assert_array_equal(vector_BD.numpy(), encoder.embed(images))
    np.testing.assert_array_equal(tokens_BNC.numpy(), encoder.tokens(images))
    assert not vector_BD.requires_grad
    assert not tokens_BNC.requires_grad
    layer = torch.nn.Linear(tokens_BNC.shape[2], 3)
    layer(tokens_BNC).sum().backward()
    np.testing.assert_allclose(layer.weight.grad[0].numpy(), tokens_BNC.sum((0, 1)).numpy(), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_compiled_agrees(small: Small, encoder: TorchEncoder, pictures: list[np.ndarray]) -> None:
    compiled = load(small, compile=True)
    images = [encoder.preprocess(rgb) for rgb in pictures[:4]]
    np.testing.assert_allclose(embed_all(compiled, images, batch_size=2), embed_all(encoder, images, batch_size=2), atol=1e-5)
    assert compiled.digest == encoder.digest | {"engine": "torch, compiled"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_gpu_agrees_with_cpu(small: Small, encoder: TorchEncoder, pictures: list[np.ndarray]) -> None:
    images = [encoder.preprocess(rgb) for rgb in pictures[:8]]
    expected_ND = embed_all(encoder, images, batch_size=4)
    exact, half = load(small, device="cuda", dtype="float32"), load(small, device="auto")
    np.testing.assert_allclose(embed_all(exact, images, batch_size=4), expected_ND, atol=1e-4)
    assert (half.device.type, half.digest["dtype"]) == ("cuda", "bfloat16")
    assert (embed_all(half, images, batch_size=4) * expected_ND).sum(1).min() > 0.999
    vector_BD, tokens_BNC = half.features(torch.from_numpy(np.stack(images)).to(half.device))
    assert (vector_BD.device.type, tokens_BNC.dtype) == ("cuda", torch.float32)


def test_clip_has_its_weights_cast_where_the_others_run_under_autocast(small: Small) -> None:
    half = load(small, dtype="bfloat16")
    kinds = {weights.dtype for weights in half.network.parameters()}
    assert kinds == ({torch.bfloat16} if small.name.startswith("clip") else {torch.float32})
    autocast: list[bool] = []
    half.network.body.register_forward_pre_hook(lambda *_: autocast.append(torch.is_autocast_enabled("cpu")))
    half.embed(np.zeros((1, 224, 224, 3), np.uint8))
    assert autocast == [not small.name.startswith("clip")]
