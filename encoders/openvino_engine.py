"""The same networks compiled by OpenVINO, for machines without a GPU: an extra to install."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from encoders.preprocessing import Recipe, prepare
from encoders.table import Settings
from encoders.torch_encoder import Built, Network, threads_of

_LARGEST_BATCH = 65536
_HINTS = {"float32": "f32", "bfloat16": "bf16"}


class OpenVINOEncoder:
    """An encoder in OpenVINO; the interface is `encoders.Encoder`."""

    batched = True

    def __init__(self, name: str, compiled: Any, recipe: Recipe, *, width: int, input_size: int, digest: dict[str, str]) -> None:
        """Takes a compiled network; `load` makes one."""
        self.name, self.width, self.input_size, self.digest = name, width, input_size, digest
        self._compiled = compiled
        self.preprocess = functools.partial(prepare, recipe=recipe, size_px=input_size)

    @classmethod
    def load(cls, name: str, settings: Settings, build: Callable[[int], Built], *, input_size: int) -> "OpenVINOEncoder":
        """Converts the torch module as it is, weights and preprocessing included; the batch's size stays free."""
        try:
            import openvino
        except ModuleNotFoundError as error:
            raise ValueError("--engine openvino: OpenVINO is not installed; run pip install 'pagepairs[openvino]'") from error
        if settings.device == "cuda":
            raise ValueError("--engine openvino runs on the CPU only; leave --device cuda out, or give --engine torch")
        dtype = "float32" if settings.dtype == "auto" else settings.dtype
        built = build(input_size)
        network = Network(built.body, built.recipe, body_dtype=torch.float32).requires_grad_(False).eval()
        example = torch.zeros((2, input_size, input_size, 3), dtype=torch.uint8)
        batch = torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)
        with torch.no_grad():
            exported = torch.export.export(network, (example,), dynamic_shapes=({0: batch},))
        model = openvino.convert_model(exported)
        hints = {"INFERENCE_PRECISION_HINT": _HINTS[dtype], "INFERENCE_NUM_THREADS": threads_of(settings)}
        digest = {
            "name": name,
            "weights": built.weights_sha256,
            "preprocessing": built.recipe.version,
            "library": f"{built.library}, openvino {openvino.__version__.split('-')[0]}",
            "engine": "openvino",
            "dtype": dtype,
            "input_size": str(input_size),
        }
        compiled = openvino.Core().compile_model(model, "CPU", hints)
        return cls(name, compiled, built.recipe, width=built.width, input_size=input_size, digest=digest)

    def embed(self, batch_BHW3: np.ndarray) -> np.ndarray:
        """Returns float32 (B, D) of unit norm."""
        vector_BD: np.ndarray = self._compiled(batch_BHW3)[0]
        # In bfloat16 the network's own norm is rounded too.
        unit_BD: np.ndarray = vector_BD / np.linalg.norm(vector_BD, axis=1, keepdims=True)
        return unit_BD

    def tokens(self, batch_BHW3: np.ndarray) -> np.ndarray:
        """Returns float32 (B, N, C)."""
        tokens: np.ndarray = self._compiled(batch_BHW3)[1]
        return tokens
