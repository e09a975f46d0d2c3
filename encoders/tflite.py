"""Any TFLite network with a pooled feature vector, through LiteRT.

The vector is the output of the network's last global pool (AVERAGE_POOL_2D or MEAN down to one place), before the classifier. To read
it, the list of outputs in a copy of the network in memory is pointed at that tensor; the interpreter then keeps it, and stays as fast
as it was. A quantised tensor is turned into real numbers by its own scale and zero point.

Inputs follow the convention of the networks that are published in this format: uint8 takes pixels as they are, int8 pixels less 128,
float32 pixels / 127.5 - 1. Images are resized to the network's size, whatever their shape.
"""

import functools
import hashlib
import importlib
import os
import threading
from dataclasses import dataclass
from importlib.metadata import version
from types import ModuleType
from typing import Any

import numpy as np

from encoders.resize import resize
from encoders.table import Settings, refuse_torch_settings

PREPROCESSING = "squash-bicubic-v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Where a network pools: indices of tensors in its first graph."""

    source: int
    """The map before the pool, (1, h, w, C)."""
    pooled: int
    """C numbers."""
    width: int
    """C."""


class TFLite:
    """The encoder `tflite:PATH`; the interface is `encoders.Encoder`. One image a run: a vector never depends on its batch."""

    batched = False

    def __init__(self, path: str, *, threads: int) -> None:
        """Reads the network; raises ValueError where it cannot serve as an encoder."""
        with open(path, "rb") as file:
            network = file.read()
        self.pool = find_pool(network, path)
        self._graph = _Graph(_with_output(network, self.pool.pooled), threads=threads)
        self._network, self._threads = network, threads
        self._map_graph: _Graph | None = None
        self.input_size = self._graph.side_px
        self.preprocess = functools.partial(resize, height=self.input_size, width=self.input_size)
        self.width = self.pool.width
        stem = os.path.splitext(os.path.basename(path))[0]
        self.name = f"tflite-{stem}"
        self.digest = {
            "name": self.name,
            "weights": hashlib.sha256(network).hexdigest(),
            "preprocessing": f"{PREPROCESSING}-{self.input_size}",
            "library": f"ai-edge-litert {version('ai-edge-litert')}",
            "engine": "litert",
            "dtype": "the file's",
            "input_size": str(self.input_size),
        }

    def embed(self, batch_BHW3: np.ndarray) -> np.ndarray:
        """Returns float32 (B, C) of unit norm; a vector of zeros, which has no direction, becomes NaN."""
        pooled_BD = np.stack([self._graph.run(image).ravel() for image in batch_BHW3])
        with np.errstate(invalid="ignore"):
            unit: np.ndarray = pooled_BD / np.linalg.norm(pooled_BD, axis=1, keepdims=True)
        return unit

    def tokens(self, batch_BHW3: np.ndarray) -> np.ndarray:
        """Returns float32 (B, h * w, C): the map before the pool, row by row."""
        if self._map_graph is None:
            self._map_graph = _Graph(_with_output(self._network, self.pool.source), threads=self._threads)
        return np.stack([self._map_graph.run(image).reshape(-1, self.width) for image in batch_BHW3])


class _Graph:
    """One interpreter with one input and one output; threads take turns."""

    def __init__(self, network: bytes, *, threads: int) -> None:
        interpreter = _litert("interpreter").Interpreter(model_content=network, num_threads=threads or os.cpu_count() or 1)
        interpreter.allocate_tensors()
        self._interpreter, self._lock = interpreter, threading.Lock()
        self._input, self._output = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        _, height, width, channels = (1, *self._input["shape"])[-4:]
        if height != width or channels != 3:
            raise ValueError(f"--encoder tflite: the network takes {height} x {width} x {channels}; only square RGB networks can be used")
        self.side_px = int(height)

    def run(self, image_HW3: np.ndarray) -> np.ndarray:
        """Returns the output for one image as real numbers, float32."""
        with self._lock:
            self._interpreter.set_tensor(self._input["index"], _as_input(image_HW3, self._input["dtype"])[None])
            self._interpreter.invoke()
            output = self._interpreter.get_tensor(self._output["index"])
        return _as_real(output, self._output["quantization_parameters"])


def load(spec: str, settings: Settings) -> TFLite:
    """Loads `tflite:PATH`; it runs on the CPU."""
    path = spec.removeprefix("tflite:")
    if settings.weights:
        raise ValueError(f"--encoder-weights {settings.weights}: the weights of {spec} are in the file itself; leave the flag out")
    refuse_torch_settings(spec, settings)
    if not os.path.isfile(path):
        raise ValueError(f"--encoder {spec}: there is no file {path}")
    return TFLite(path, threads=settings.threads)


def find_pool(network: bytes, path: str) -> Pool:
    """Finds the last operator that averages a map down to one place.

    Raises:
      ValueError: if the file is no TFLite network, or has no such operator.
    """
    if network[4:8] != b"TFL3":
        raise ValueError(f"--encoder tflite:{path}: not a TFLite network")
    schema = _litert("schema_py_generated")
    model = schema.Model.GetRootAs(network, 0)
    graph = model.Subgraphs(0)
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    # Old files hold the code in the deprecated field of one byte, new ones in both.
    kinds = [max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) for code in codes]
    pools = (schema.BuiltinOperator.AVERAGE_POOL_2D, schema.BuiltinOperator.MEAN)
    for i in reversed(range(graph.OperatorsLength())):
        operator = graph.Operators(i)
        source, pooled = operator.Inputs(0), operator.Outputs(0)
        before, after = _shape(graph, source), _shape(graph, pooled)
        if kinds[operator.OpcodeIndex()] in pools and len(before) == 4 and before[-1] == after[-1] == np.prod(after) > 1:
            return Pool(source=source, pooled=pooled, width=after[-1])
    raise ValueError(f"--encoder tflite:{path}: no global average pool; a network must pool a map to one vector before its classifier")


def _shape(graph: Any, tensor: int) -> tuple[int, ...]:
    return tuple(graph.Tensors(tensor).ShapeAsNumpy().tolist()) if graph.Tensors(tensor).ShapeLength() else ()


def _with_output(network: bytes, tensor: int) -> bytes:
    """Returns a copy of the network whose first output is `tensor`."""
    copy = bytearray(network)
    graph = _litert("schema_py_generated").Model.GetRootAs(copy, 0).Subgraphs(0)
    graph.OutputsAsNumpy()[0] = tensor  # a view: this writes into `copy`
    return bytes(copy)


def _as_input(image_HW3: np.ndarray, kind: type) -> np.ndarray:
    """Returns pixels in the type that the network takes."""
    if kind == np.uint8:
        return image_HW3
    if kind == np.int8:
        return (image_HW3.astype(np.int16) - 128).astype(np.int8)
    return image_HW3.astype(np.float32) / np.float32(127.5) - np.float32(1)


def _as_real(output: np.ndarray, quantization: dict[str, np.ndarray]) -> np.ndarray:
    """Returns the output as float32; a float tensor has no scale."""
    real: np.ndarray = output.astype(np.float32)
    if len(quantization["scales"]):
        real = (real - np.float32(quantization["zero_points"][0])) * np.float32(quantization["scales"][0])
    return real


def _litert(module: str) -> ModuleType:
    try:
        return importlib.import_module(f"ai_edge_litert.{module}")
    except ModuleNotFoundError as error:
        raise ValueError("--encoder tflite: needs LiteRT, which is not installed; run pip install 'pagepairs[tflite]'") from error
