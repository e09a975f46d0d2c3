"""The same random weights through our code and through another library's implementation: vectors and tokens agree to 1e-4."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from small_networks import FAMILIES, Small
from timm.models.vision_transformer import VisionTransformer
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, SiglipVisionConfig, SiglipVisionModel

from encoders.table import Settings

Tensors = dict[str, torch.Tensor]
Other = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks gain nothing from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _tensors(small: Small) -> Tensors:
    (path,) = small.folder.glob("*.safetensors")
    return load_file(path)


def _filled(network: Any, tensors: Tensors) -> Any:
    network.load_state_dict(tensors)
    return network.eval()


def _renamed(tensors: Tensors, names: list[tuple[str, str]]) -> Tensors:
    """Tensors of transformers' vision transformers under timm's names, queries, keys and values stacked."""
    found: Tensors = {}
    for key, tensor in tensors.items():
        for old, new in names:
            key = key.replace(old, new)  # noqa: PLW2901
        found[key] = tensor
    for key in [key for key in found if ".q." in key]:
        q, k, v = (found.pop(key.replace(".q.", f".{part}."), None) for part in "qkv")
        assert q is not None
        assert v is not None
        found[key.replace(".q.", ".qkv.")] = torch.cat([q, torch.zeros_like(q) if k is None else k, v])
    return found


_QKV = [
    *((f"attention.{old}_proj", f"attn.{old}") for old in "qkv"),
    ("attention.attention.query", "attn.q"),
    ("attention.attention.key", "attn.k"),
    ("attention.attention.value", "attn.v"),
    ("attention.output.dense", "attn.proj"),
    ("attention.o_proj", "attn.proj"),
]
_DINO = [
    ("model.layer.", "blocks."),
    ("encoder.layer.", "blocks."),
    ("layer.", "blocks."),
    *_QKV,
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
    ("mlp.weights_in", "mlp.fc1"),
    ("mlp.weights_out", "mlp.fc2"),
    ("layernorm.", "norm."),
    ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("embeddings.patch_embeddings", "patch_embed.proj"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.register_tokens", "reg_token"),
    ("embeddings.cls_token", "cls_token"),
]
_BLOCKS = {"depth": 2, "num_classes": 0}


def dinov2_in_timm(small: Small) -> Other:
    tensors = _renamed(_tensors(small), _DINO)
    tensors.pop("embeddings.mask_token")
    # Without registers transformers resamples without antialiasing, where timm has it.
    grid_1CHW = tensors["pos_embed"][:, 1:].reshape(1, 37, 37, -1).permute(0, 3, 1, 2)
    placed = torch.nn.functional.interpolate(grid_1CHW, (16, 16), mode="bicubic").flatten(2).permute(0, 2, 1)
    tensors["pos_embed"] = torch.cat([tensors["pos_embed"][:, :1], placed], dim=1)
    size = {"img_size": 224, "embed_dim": 48, "num_heads": 3}
    if small.name.endswith("giant"):
        size |= {"mlp_ratio": 256 / 48}
        network = timm.create_model("vit_giant_patch14_dinov2", **size, **_BLOCKS)
    else:
        network = timm.create_model("vit_small_patch14_dinov2", **size, **_BLOCKS)
    return _cls_first(_filled(network, tensors), extra=0)


def registers_in_timm(small: Small) -> Other:
    """Timm resamples the position grid itself here: both antialias for the models with registers."""
    tensors = _renamed(_tensors(small), _DINO)
    tensors.pop("embeddings.mask_token")
    # timm keeps the CLS token's position in the token.
    tensors["cls_token"] = tensors["cls_token"] + tensors["pos_embed"][:, :1]
    tensors["pos_embed"] = tensors["pos_embed"][:, 1:]
    network = _filled(timm.create_model("vit_small_patch14_reg4_dinov2", embed_dim=48, num_heads=3, **_BLOCKS), tensors)
    network.set_input_size(224)
    return _cls_first(network, extra=4)


def dinov3_in_timm(small: Small) -> Other:
    gated = small.name.endswith("gated")
    mlp = [("gate_proj", "fc1_g"), ("up_proj", "fc1_x")] if gated else [("up_proj", "fc1")]
    tensors = _renamed(_tensors(small), [*_DINO, ("ls1.gamma", "gamma_1"), ("ls2.gamma", "gamma_2"), *mlp, ("down_proj", "fc2")])
    tensors.pop("embeddings.mask_token")
    for key in [key for key in tensors if key.endswith(".qkv.bias")]:
        tensors[key.replace("qkv.bias", "q_bias")], _, tensors[key.replace("qkv.bias", "v_bias")] = tensors.pop(key).chunk(3)
    name = "vit_small_plus_patch16_dinov3" if gated else "vit_small_patch16_dinov3_qkvb"
    network = timm.create_model(name, embed_dim=64, num_heads=2, mlp_ratio=2.0, **_BLOCKS)
    return _cls_first(_filled(network, tensors), extra=4)


def mae_in_timm(small: Small) -> Other:
    names = [("vit.", ""), *_DINO, ("layers.", "blocks."), ("layernorm_before", "norm1"), ("layernorm_after", "norm2")]
    names += [("intermediate.dense", "mlp.fc1"), ("output.dense", "mlp.fc2")]
    tensors = {key: tensor for key, tensor in _tensors(small).items() if not key.startswith("decoder.")}
    norm = partial(torch.nn.LayerNorm, eps=1e-12)
    network = VisionTransformer(embed_dim=48, depth=2, num_heads=3, num_classes=0, global_pool="token", norm_layer=norm)
    return _cls_first(_filled(network, _renamed(tensors, names)), extra=0)


def siglip_in_transformers(small: Small) -> Other:
    """With the exact GELU, as timm has it; transformers' own configuration says the tanh approximation."""
    names = [
        ("visual.trunk.", ""),
        ("attn_pool.latent", "head.probe"),
        ("attn_pool.proj", "head.attention.out_proj"),
        ("attn_pool.norm", "head.layernorm"),
        ("attn_pool.mlp", "head.mlp"),
        ("blocks.", "encoder.layers."),
        ("attn.proj", "self_attn.out_proj"),
        ("norm1", "layer_norm1"),
        ("norm2", "layer_norm2"),
        ("patch_embed.proj", "embeddings.patch_embedding"),
    ]
    tensors: Tensors = {}
    for key, tensor in _tensors(small).items():
        if not key.startswith("visual."):
            continue
        for old, new in names:
            key = key.replace(old, new)  # noqa: PLW2901
        key = f"post_layer{key}" if key.startswith("norm.") else key  # noqa: PLW2901
        if ".attn.qkv." in key:
            tensors |= {
                key.replace("attn.qkv", f"self_attn.{part}_proj"): third for part, third in zip("qkv", tensor.chunk(3), strict=True)
            }
        else:
            tensors[key] = tensor
    tensors["embeddings.position_embedding.weight"] = tensors.pop("pos_embed")[0]
    for kind in ("weight", "bias"):
        tensors[f"head.attention.in_proj_{kind}"] = torch.cat([tensors.pop(f"attn_pool.q.{kind}"), tensors.pop(f"attn_pool.kv.{kind}")])
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256}
    network = _filled(SiglipVisionModel(SiglipVisionConfig(**size, image_size=224, patch_size=16, hidden_act="gelu")), tensors)
    return lambda pixels: ((found := network(pixels)).pooler_output, found.last_hidden_state)


def clip_in_transformers(small: Small) -> Other:
    names = [
        ("transformer.resblocks.", "vision_model.encoder.layers."),
        ("attn.out_proj", "self_attn.out_proj"),
        ("mlp.c_fc", "mlp.fc1"),
        ("mlp.c_proj", "mlp.fc2"),
        ("ln_1", "layer_norm1"),
        ("ln_2", "layer_norm2"),
        ("ln_pre", "vision_model.pre_layrnorm"),
        ("ln_post", "vision_model.post_layernorm"),
        ("conv1", "vision_model.embeddings.patch_embedding"),
        ("class_embedding", "vision_model.embeddings.class_embedding"),
        ("positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    ]
    tensors: Tensors = {}
    for key, tensor in _tensors(small).items():
        if not key.startswith("visual."):
            continue
        key = key.removeprefix("visual.")  # noqa: PLW2901
        for old, new in names:
            key = key.replace(old, new)  # noqa: PLW2901
        if ".attn.in_proj_" in key:
            thirds = zip("qkv", tensor.chunk(3), strict=True)
            tensors |= {key.replace("attn.in_proj_", f"self_attn.{part}_proj."): third for part, third in thirds}
        else:
            tensors[key] = tensor
    tensors["visual_projection.weight"] = tensors.pop("proj").T
    size = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512, "projection_dim": 32}
    network = _filled(CLIPVisionModelWithProjection(CLIPVisionConfig(**size, patch_size=32, hidden_act="quick_gelu")), tensors)

    def run(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = network(pixels)
        return found.image_embeds, network.vision_model.post_layernorm(found.last_hidden_state[:, 1:])

    return run


def _cls_first(network: Any, *, extra: int) -> Other:
    def run(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = network.forward_features(pixels)
        return tokens[:, 0], torch.cat([tokens[:, :1], tokens[:, 1 + extra :]], dim=1)

    return run


OTHERS: dict[str, Callable[[Small], Other]] = {
    "dinov2": dinov2_in_timm,
    "dinov2-giant": dinov2_in_timm,
    "dinov2-reg": registers_in_timm,
    "dinov3": dinov3_in_timm,
    "dinov3-gated": dinov3_in_timm,
    "siglip": siglip_in_transformers,
    "clip": clip_in_transformers,
    "mae": mae_in_timm,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_another_library_gives_the_same(family: str, tmp_path: Path, pictures: list[np.ndarray]) -> None:
    small = FAMILIES[family](tmp_path / family)
    encoder = small.load(Settings(weights=str(small.folder), device="cpu"))
    images = np.stack([encoder.preprocess(rgb) for rgb in pictures[:4]])
    pixels_BCHW = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    pixels_BCHW = (pixels_BCHW - encoder.network.mean_C11) / encoder.network.deviation_C11
    with torch.inference_mode():
        vector_BD, tokens_BNC = OTHERS[family](small)(pixels_BCHW)
    np.testing.assert_allclose(encoder.embed(images), torch.nn.functional.normalize(vector_BD, dim=-1).numpy(), atol=1e-4)
    np.testing.assert_allclose(encoder.tokens(images), tokens_BNC.numpy(), atol=1e-4, rtol=1e-4)
