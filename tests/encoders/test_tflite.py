"""TFLite networks: a real one, and small ones that are built here."""

import shutil
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from encoders import Encoder, embed_all, load_encoder

_TYPES = {np.float32: schema.TensorType.FLOAT32, np.uint8: schema.TensorType.UINT8, np.int8: schema.TensorType.INT8}


@pytest.fixture(scope="module")
def mobilenet_path(shared_data: Path) -> Path:
    """A pretrained MobileNet v2, quantised."""
    return shared_data / "encoder_mobilenet" / "tf2_mobilenet_v2_1.0_224_ptq.tflite"


@pytest.fixture(scope="module")
def mobilenet(mobilenet_path: Path) -> Encoder:
    """The encoder on it."""
    return load_encoder(f"tflite:{mobilenet_path}", threads=2)


def _tensor(shape: tuple[int, ...], kind: type, scale: float, zero: int) -> Any:
    tensor = schema.TensorT()
    tensor.shape, tensor.type, tensor.buffer = list(shape), _TYPES[kind], 0
    if kind is not np.float32:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [zero]
    return tensor


def _network(
    path: Path, *, shape: tuple[int, ...] = (1, 4, 4, 3), kind: type = np.float32, scale: float = 0.0, zero: int = 0, window: int = 4
) -> Path:
    """Writes a network of one average pool and one reshape, the latter its output."""
    _, height, width, channels = shape
    pooled = (1, height // window, width // window, channels)
    pool, flatten = schema.OperatorT(), schema.OperatorT()
    pool.opcodeIndex, pool.inputs, pool.outputs = 0, [0], [1]
    options = schema.Pool2DOptionsT()
    options.padding, options.strideW, options.strideH = schema.Padding.VALID, window, window
    options.filterWidth = options.filterHeight = window
    pool.builtinOptionsType, pool.builtinOptions = schema.BuiltinOptions.Pool2DOptions, options
    flatten.opcodeIndex, flatten.inputs, flatten.outputs = 1, [1], [2]
    reshape = schema.ReshapeOptionsT()
    reshape.newShape = [1, int(np.prod(pooled))]
    flatten.builtinOptionsType, flatten.builtinOptions = schema.BuiltinOptions.ReshapeOptions, reshape
    graph = schema.SubGraphT()
    graph.tensors = [_tensor(size, kind, scale, zero) for size in (shape, pooled, (1, int(np.prod(pooled))))]
    graph.inputs, graph.outputs, graph.operators = [0], [2], [pool, flatten]
    model = schema.ModelT()
    model.version, model.subgraphs, model.buffers = 3, [graph], [schema.BufferT()]
    model.operatorCodes = []
    for code in (schema.BuiltinOperator.AVERAGE_POOL_2D, schema.BuiltinOperator.RESHAPE):
        entry = schema.OperatorCodeT()
        entry.builtinCode = entry.deprecatedBuiltinCode = code
        entry.version = 2 if kind is np.int8 and code == schema.BuiltinOperator.AVERAGE_POOL_2D else 1
        model.operatorCodes.append(entry)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


@pytest.mark.parametrize(
    ("kind", "scale", "zero", "tolerance"),
    [(np.float32, 0.0, 0, 1e-6), (np.uint8, 1 / 127.5, 127, 0.01), (np.int8, 1 / 127.5, 0, 0.01)],
)
def test_pool_is_the_mean_of_the_pixels(tmp_path: Path, kind: type, scale: float, zero: int, tolerance: float) -> None:
    encoder = load_encoder(f"tflite:{_network(tmp_path / 'mean.tflite', kind=kind, scale=scale, zero=zero)}")
    assert (encoder.name, encoder.width, encoder.input_size) == ("tflite-mean", 3, 4)
    # Means far from zero, so that eight bits hold them well.
    image = np.random.Generator(np.random.Philox(key=1)).integers((150, 0, 200), (250, 90, 256), (4, 4, 3), np.uint8)
    real = image.astype(np.float64) / 127.5 - 1
    mean = real.mean((0, 1))
    vector_BD = encoder.embed(image[None])
    np.testing.assert_allclose(vector_BD, (mean / np.linalg.norm(mean))[None], atol=tolerance)
    tokens_BNC = encoder.tokens(image[None])
    assert (tokens_BNC.shape, tokens_BNC.dtype, vector_BD.dtype) == ((1, 16, 3), np.float32, np.float32)
    np.testing.assert_allclose(tokens_BNC, real.reshape(1, 16, 3), atol=tolerance)


def test_unusable_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no file"):
        load_encoder(f"tflite:{tmp_path / 'absent.tflite'}")
    (tmp_path / "text.tflite").write_bytes(b"not a network")
    with pytest.raises(ValueError, match=r"text\.tflite: not a TFLite network"):
        load_encoder(f"tflite:{tmp_path / 'text.tflite'}")
    with pytest.raises(ValueError, match=r"windows\.tflite: no global average pool"):
        load_encoder(f"tflite:{_network(tmp_path / 'windows.tflite', window=2)}")
    with pytest.raises(ValueError, match="takes 4 x 4 x 5; only square RGB"):
        load_encoder(f"tflite:{_network(tmp_path / 'five.tflite', shape=(1, 4, 4, 5))}")


def test_wrong_settings_name_their_flag(mobilenet_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--device cuda: tflite:.* runs on the CPU only"):
        load_encoder(f"tflite:{mobilenet_path}", device="cuda")
    with pytest.raises(ValueError, match=r"--encoder-weights folder: the weights of tflite:.* are in the file itself"):
        load_encoder(f"tflite:{mobilenet_path}", weights="folder")


def test_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _network(tmp_path / "mean.tflite")
    for name in ("ai_edge_litert.schema_py_generated", "ai_edge_litert.interpreter"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=r"needs LiteRT, which is not installed; run pip install 'pagepairs\[tflite\]'"):
        load_encoder(f"tflite:{path}")


def test_mobilenet_interface(mobilenet: Encoder, mobilenet_path: Path, tmp_path: Path, photos: list[np.ndarray]) -> None:
    assert (mobilenet.width, mobilenet.input_size) == (1280, 224)
    assert mobilenet.digest == {
        "name": "tflite-tf2_mobilenet_v2_1.0_224_ptq",
        "weights": "5d3137241276e79c86d14a74fe43581398ae0e815191d3dba45495b810840e8c",
        "preprocessing": "squash-bicubic-v1-224",
        "library": f"ai-edge-litert {version('ai-edge-litert')}",
        "engine": "litert",
        "dtype": "the file's",
        "input_size": "224",
    }
    images = [mobilenet.preprocess(rgb) for rgb in photos]
    assert {(image.shape, image.dtype) for image in images} == {((224, 224, 3), np.dtype(np.uint8))}
    vector_ND = embed_all(mobilenet, images, batch_size=3)
    np.testing.assert_allclose(np.linalg.norm(vector_ND, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(vector_ND, np.concatenate([mobilenet.embed(image[None]) for image in images]))
    renamed = tmp_path / "other.tflite"
    shutil.copy(mobilenet_path, renamed)
    one_thread = load_encoder(f"tflite:{renamed}", threads=1)
    np.testing.assert_array_equal(vector_ND, embed_all(one_thread, images, batch_size=8))
    tokens_BNC = mobilenet.tokens(np.stack(images[:2]))
    assert tokens_BNC.shape == (2, 49, 1280)
    mean_BC = tokens_BNC.mean(1)
    cosine_B = (mean_BC * vector_ND[:2]).sum(1) / np.linalg.norm(mean_BC, axis=1)
    assert cosine_B.min() > 0.999  # the pool rounds to 8 bits


def test_pages_show_in_the_similarities(
    mobilenet: Encoder, recipe_photos: list[tuple[str, Path]], read_photo: Callable[[Path], np.ndarray]
) -> None:
    images = [mobilenet.preprocess(read_photo(path)) for _, path in recipe_photos]
    vector_ND = embed_all(mobilenet, images, batch_size=32)
    pages = np.array([page for page, _ in recipe_photos])
    first, second = np.triu_indices(len(pages), 1)
    same = pages[first] == pages[second]
    cosine = (vector_ND @ vector_ND.T)[first, second]
    np.testing.assert_allclose(np.percentile(cosine[same], [10, 50, 90]), [0.28, 0.41, 0.58], atol=0.03)
    np.testing.assert_allclose(np.percentile(cosine[~same], [90, 99]), [0.48, 0.60], atol=0.03)


def test_nearest_photo_shows_the_same_subject(mobilenet: Encoder, shared_data: Path, read_photo: Callable[[Path], np.ndarray]) -> None:
    paths = sorted((shared_data / "bench_dreambooth" / "dataset").glob("*/*.jpg"))
    vector_ND = embed_all(mobilenet, [mobilenet.preprocess(read_photo(path)) for path in paths], batch_size=32)
    cosine_NN = vector_ND @ vector_ND.T - 2 * np.eye(len(paths), dtype=np.float32)
    subjects = np.array([path.parent.name for path in paths])
    assert len(paths) == 55
    assert np.mean(subjects[cosine_NN.argmax(1)] == subjects) >= 0.95
