"""The builder, against the published sizes; the network's conditions and its start."""

import dataclasses

import pytest
import torch

from train.network import Network, NetworkConfig, build
from train.presets import PRESETS
from train.size import TRAINING, forward_flop, parameters_of

SMALL = NetworkConfig(image_px=32, channels=(16, 24, 32), blocks=(1, 2, 2), transformer_from=1, embedding=48, head_width=8, dropout=0.0)


def on_meta(config: NetworkConfig, condition_width: int = 0, classes: int = 0) -> Network:
    with torch.device("meta"):
        return build(config, conditioning="cross_attention", condition_width=condition_width, classes=classes)


@pytest.mark.parametrize(
    ("image_px", "channels", "millions", "share"),
    [
        (64, (256, 512, 1024), 394, 0.005),
        (64, (512, 1024, 2048), 1230, 0.012),
        (128, (128, 256, 512, 1024), 397, 0.005),
        (128, (256, 512, 1024, 2048), 1250, 0.012),
    ],
)
def test_the_label_conditional_ladder_has_the_published_sizes(
    image_px: int, channels: tuple[int, ...], millions: float, share: float
) -> None:
    levels = len(channels)
    config = NetworkConfig(image_px=image_px, channels=channels, blocks=(3,) * (levels - 1) + (16,), transformer_from=levels - 2)
    assert parameters_of(on_meta(config, classes=1000)) / 1e6 == pytest.approx(millions, rel=share)


@pytest.mark.parametrize(
    ("preset", "tokens", "millions", "teraflop"),
    [
        ("semantica-256", (257, 768), 458.6, 1.63),
        ("semantica-512", (257, 1024), 3888.3, 10.6),
        ("semantica-256", (257, 1024), 467.0, 1.647),
    ],
)
def test_the_models_of_the_paper_have_their_computed_sizes(preset: str, tokens: tuple[int, int], millions: float, teraflop: float) -> None:
    config = PRESETS[preset]().network
    assert parameters_of(on_meta(config, tokens[1])) / 1e6 == pytest.approx(millions, abs=0.1)
    flop = TRAINING * forward_flop(config, conditioning="cross_attention", condition_shape=tokens)
    assert flop / 1e12 == pytest.approx(teraflop, rel=0.003)


def test_tiny_and_small_are_as_small_as_they_say() -> None:
    for width in (12, 768, 1024, 1280):
        assert parameters_of(on_meta(PRESETS["tiny"]().network, width)) < 3e6
    assert parameters_of(on_meta(PRESETS["small"]().network, 768)) == pytest.approx(50e6, rel=0.05)


def test_the_large_model_doubles_all_channels() -> None:
    base, large = (PRESETS[name]().network for name in ("semantica-256", "semantica-256-l"))
    assert large.channels == tuple(2 * width for width in base.channels)
    assert (large.blocks, large.embedding) == (base.blocks, base.embedding)


def by_hand(config: NetworkConfig, tokens: int, token_width: int) -> int:
    """FLOP of a forward pass, term by term."""
    side, total, middle = config.image_px // config.patch_px, 0, len(config.channels) - 1
    pixels, wide = 3 * config.patch_px**2, config.embedding
    total += side**2 * (pixels * config.channels[0] + 9 * config.channels[0] * pixels)  # stem and last convolution
    total += config.channels[0] * wide + wide * wide  # time
    for level, (width, blocks) in enumerate(zip(config.channels, config.blocks, strict=True)):
        places, count = (side >> level) ** 2, blocks * (1 if level == middle else 2)
        if level < config.transformer_from:
            total += count * (2 * 9 * places * width**2 + wide * 2 * width)
        else:
            total += count * (places * 12 * width**2 + 2 * places**2 * width + wide * 8 * width)
        if level == middle:
            total += count * (2 * places * width**2 + 2 * tokens * token_width * width + 2 * places * tokens * width)
        else:
            total += 2 * (places // 4) * width * config.channels[level + 1]  # to the next level and back
    return 2 * total


@pytest.mark.parametrize("config", [SMALL, PRESETS["tiny"]().network, PRESETS["semantica-512"]().network])
def test_counted_flop_are_those_counted_by_hand(config: NetworkConfig) -> None:
    assert forward_flop(config, conditioning="cross_attention", condition_shape=(49, 40)) == by_hand(config, 49, 40)


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    made = build(SMALL, conditioning="cross_attention", condition_width=20).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return made


def test_a_new_network_outputs_zero() -> None:
    made = build(SMALL, conditioning="cross_attention", condition_width=20)
    assert torch.equal(made(torch.randn(2, 3, 32, 32), torch.zeros(2), torch.randn(2, 7, 20)), torch.zeros(2, 3, 32, 32))


def test_every_parameter_has_a_part_in_the_output(network: Network) -> None:
    null = torch.tensor([True, False])
    network(torch.randn(2, 3, 32, 32), torch.tensor([-3.0, 2.0]), torch.randn(2, 7, 20), null).square().sum().backward()
    # The key's bias adds the same to all logits of a query before the key is normalised, but not after: it counts too.
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.any()] == []


def test_the_null_condition_hides_the_condition_of_its_image_only(network: Network) -> None:
    z, log_snr, tokens, others = torch.randn(2, 3, 32, 32), torch.zeros(2), torch.randn(2, 7, 20), torch.randn(2, 7, 20)
    null = torch.tensor([True, False])
    first, second = network(z, log_snr, tokens, null), network(z, log_snr, others, null)
    assert torch.equal(first[0], second[0])
    assert not torch.allclose(first[1], second[1])
    assert torch.equal(network(z, log_snr, tokens, torch.tensor([False, False])), network(z, log_snr, tokens, None))


def test_film_takes_the_global_vector() -> None:
    torch.manual_seed(0)
    made = build(SMALL, conditioning="film", condition_width=20)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    z, log_snr, vector = torch.randn(2, 3, 32, 32), torch.zeros(2), torch.randn(2, 20)
    first = made(z, log_snr, vector)
    assert not torch.allclose(first, made(z, log_snr, vector.flip(0)))
    assert torch.allclose(first, made(z, log_snr, 1000 * vector), atol=1e-4)  # the vector is normalised first
    assert not any("cross" in name for name, _ in made.named_parameters())


def test_cross_attention_stands_in_the_middle_only() -> None:
    names = {
        name.split(".cross")[0]
        for name, _ in build(SMALL, conditioning="cross_attention", condition_width=20).named_parameters()
        if "cross" in name
    }
    assert names == {"middle.0", "middle.1"}


def test_checkpointing_changes_memory_not_gradients() -> None:
    gradients = []
    for levels in ((), (0, 1, 2)):
        torch.manual_seed(3)
        made = build(dataclasses.replace(SMALL, checkpoint_levels=levels, dropout=0.1), conditioning="cross_attention", condition_width=20)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
        made(torch.randn(2, 3, 32, 32), torch.zeros(2), torch.randn(2, 7, 20), torch.tensor([True, False])).square().mean().backward()
        gradients.append([parameter.grad for parameter in made.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_patches_keep_the_size_of_the_image() -> None:
    config = NetworkConfig(image_px=32, patch_px=2, channels=(16, 32), blocks=(1, 1), transformer_from=1, embedding=32, head_width=16)
    assert build(config, conditioning="film", condition_width=4)(torch.randn(1, 3, 32, 32), torch.zeros(1), torch.randn(1, 4)).shape == (
        1,
        3,
        32,
        32,
    )


def test_a_side_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(ValueError, match="must be a multiple of 4"):
        build(NetworkConfig(image_px=30, channels=(8, 8, 8), blocks=(1, 1, 1), transformer_from=2), conditioning="film", condition_width=4)
