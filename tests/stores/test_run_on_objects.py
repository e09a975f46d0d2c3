"""The whole run with crawl and output in an object store, through requests that fail: the same bytes as on this machine."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from contents import contents, upload
from object_store import Door

from dedup.benchmark import read_benchmark
from encoders import load_encoder
from pagepairs.files import read_json
from pagepairs.locks import lock_output
from pagepairs.stores import store_of
from pipeline.audit import main as audit_main
from pipeline.benchmark import main as benchmark_main
from pipeline.commands import EXIT_OUTPUT, main


@pytest.fixture(scope="module")
def howtocook_run(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    output = str(tmp_path_factory.mktemp("local") / "out")
    assert main("run", ["--input", str(shared_data / "howtocook.warc.gz"), "--output", output, "--encoder", "builtin"]) == 0
    return output


# Google's client leaves a connection that broke to the garbage collector; without broken requests nothing is ignored here.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning")
def test_a_run_on_objects_gives_the_same_bytes(
    howtocook_run: str,
    shared_data: Path,
    remote_folder: str,
    door: Door,
    quick_backoff: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    crawl, output = f"{remote_folder}/in/howtocook.warc.gz", f"{remote_folder}/out"
    with store_of(crawl).open_write(crawl) as file:
        file.write((shared_data / "howtocook.warc.gz").read_bytes())
    door.faults_between = itertools.cycle([None] * 17 + [429, 429] + [None] * 19 + ["reset"] + [None] * 23 + ["reset-in-answer", 503])
    before = door.requests
    argv = ["--input", f"{remote_folder}/in/*.warc.gz", "--output", output, "--encoder", "builtin"]
    assert main("run", argv) == 0
    assert door.requests - before > 200
    assert contents(output) == contents(howtocook_run)
    assert [path for path in store_of(output).files(output) if "/.tmp-" in path or path.endswith("/lock")] == []
    assert list((tmp_path / "here").iterdir()) == []

    before = door.requests
    assert main("run", argv) == 0  # nothing but the report is made again
    assert contents(output) == contents(howtocook_run)
    with lock_output(f"{output}/.work/lock"):
        assert main("run", argv) == EXIT_OUTPUT

    index = str(tmp_path / "index")
    photos = str(shared_data / "bench_dreambooth")
    assert benchmark_main("benchmark", ["build", "--name", "b", "--images", photos, "--output", index, "--encoder", "builtin"]) == 0
    codes = [audit_main("audit", ["--output", place, "--benchmark", index, "--sample", "9"]) for place in (output, howtocook_run)]
    assert codes[0] == codes[1]
    there, here = (read_json(f"{place}/report/audit.json") for place in (output, howtocook_run))
    assert there == here
    assert there["checked"]["hash"] == there["images"] > 0
    assert [path for path in store_of(output).files(f"{output}/.work") if "/audit-" in path] == []


def test_weights_and_indexes_may_stand_in_the_store(
    shared_data: Path, remote_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    network = next((shared_data / "encoder_mobilenet").glob("*.tflite"))
    place = f"{remote_folder}/{network.name}"
    with store_of(place).open_write(place) as file:
        file.write(network.read_bytes())
    here, there = load_encoder(f"tflite:{network}"), load_encoder(f"tflite:{place}")
    batch = np.full((1, here.input_size, here.input_size, 3), 90, np.uint8)
    assert there.digest == here.digest
    assert np.array_equal(there.embed(batch), here.embed(batch))

    built = f"{tmp_path}/index"
    photos = str(shared_data / "bench_dreambooth")
    assert benchmark_main("benchmark", ["build", "--name", "b", "--images", photos, "--output", built, "--encoder", "builtin"]) == 0
    upload(Path(built), f"{remote_folder}/index")
    index = read_benchmark(f"{remote_folder}/index")
    assert index.content == read_benchmark(built).content
    assert index.folder == f"{remote_folder}/index"
    with pytest.raises(ValueError, match="no index there; make one"):
        read_benchmark(f"{remote_folder}/none")
    with pytest.raises(ValueError, match="there is no such object"):
        load_encoder(f"tflite:{remote_folder}/none.tflite")
