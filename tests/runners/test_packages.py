"""What workers and images install: from the files that are staged or copied, in environments that hold nothing else of this checkout.

The libraries that pagepairs needs are taken from this environment (`--no-deps`): they weigh 9 GB.
"""

import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.internal.gcp import auth
from apache_beam.portability.api import beam_runner_api_pb2

from pipeline.runners import open_job, pipeline_options

ROOT = Path(__file__).resolve().parents[2]
DATAFLOW = ["--runner=DataflowRunner", "--project=proj-x", "--region=europe-west4", "--temp_location=gs://bucket/tmp", "--dry_run=True"]
IMPORTS = """
import pagepairs.cli, pipeline.run, pipeline.embed, pipeline.report, pipeline.local_workers, encoders, filters, dedup, train
print(pipeline.__file__)
"""
TEMPLATES = """
import pathlib, pipeline.card
print(sorted(path.name for path in (pathlib.Path(pipeline.card.__file__).parent / "templates").iterdir()))
"""

HARNESS = """
from apache_beam.runners.worker.sdk_worker_main import create_harness
create_harness({"CONTROL_API_SERVICE_DESCRIPTOR": 'url: "localhost:1"', "PIPELINE_OPTIONS": "{}"}, dry_run=True)
"""


def clean_environment(folder: Path) -> Path:
    """Makes a virtual environment that sees the libraries here but not this checkout; returns its Python."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    own = subprocess.run(where, check=True, capture_output=True, text=True).stdout.strip()
    # A folder named in a .pth file is searched for modules, but its own .pth files, as of an editable checkout, are not read.
    Path(own, "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def run_in(python: Path, *args: object) -> str:
    env = {"PATH": f"{python.parent}:/usr/bin:/bin", "HOME": str(python.parent)}
    done = subprocess.run([python, *map(str, args)], capture_output=True, text=True, check=False, cwd=python.parent, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def install(python: Path, source: Path) -> None:
    run_in(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", source)


def assert_works(python: Path) -> None:
    assert run_in(python, "-P", "-c", IMPORTS).startswith(str(python.parents[1]))
    assert "from a crawl to pair shards" in run_in(python, "-P", python.parent / "pagepairs", "--help")
    assert "--encoder" in run_in(python, "-P", python.parent / "pagepairs", "run", "--help")
    assert run_in(python, "-P", "-c", TEMPLATES).strip() == str(sorted(path.name for path in (ROOT / "pipeline" / "templates").iterdir()))


def test_what_setup_py_stages_installs_and_works_on_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beam builds the package that it would send to Dataflow's workers; a clean environment plays the worker."""
    monkeypatch.setattr(auth._Credentials, "_credentials_init", True)
    copy = tmp_path / "checkout"  # building writes beside setup.py
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "tests", "benchmarks", "demo", "*.egg-info"))
    monkeypatch.chdir(copy)
    with open_job("x", pipeline_options([*DATAFLOW, "--setup_file=./setup.py"], 1), tasks=2) as pipeline:
        pipeline | beam.Create([1])
    components = pipeline.result.job.proto_pipeline.components
    [environment] = [env for env in components.environments.values() if env.urn == "beam:env:docker:v1"]
    files = {}
    for artifact in environment.dependencies:
        name = beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(artifact.role_payload).staged_name
        files[name] = beam_runner_api_pb2.ArtifactFilePayload.FromString(artifact.type_payload).path
    assert set(files) == {"workflow.tar.gz"}
    with tarfile.open(files["workflow.tar.gz"]) as package:
        assert not any("/tests/" in name or "/benchmarks/" in name for name in package.getnames())
    staged = tmp_path / "workflow.tar.gz"
    shutil.copy(files["workflow.tar.gz"], staged)
    python = clean_environment(tmp_path / "worker")
    install(python, staged)
    assert_works(python)


def dockerfile() -> list[list[str]]:
    """Returns the Dockerfile's instructions as words, comments and line ends taken out."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [line.split() for line in text.splitlines() if line.strip()]


def test_the_steps_of_the_image_install_and_work_in_a_clean_environment(tmp_path: Path) -> None:
    """No container engine is needed for this: what COPY names is copied, what RUN installs is installed, the entry points start."""
    instructions = dockerfile()
    context = tmp_path / "image"
    context.mkdir()
    for _, *names in (words for words in instructions if words[0] == "COPY" and not words[1].startswith("--from")):
        *sources, target = names
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, context / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, context / target)
    python = clean_environment(tmp_path / "venv")
    install(python, context)
    assert_works(python)
    # The command that bakes an encoder in runs, here for the one that has no weights.
    [bake] = [words for words in instructions if words[0] == "RUN" and "load_encoder(sys.argv[1]," in words]
    code = shlex.split(" ".join(bake[1:]))
    assert code[: code.index("-c")][-1] == "python"
    run_in(python, "-P", "-c", code[code.index("-c") + 1], "builtin")
    # Beam's boot program, which is not at hand, starts the harness: as far as that comes without a runner.
    run_in(python, "-P", "-c", HARNESS)


def test_the_image_has_two_targets_and_their_entry_points() -> None:
    instructions = dockerfile()
    stages = [words[3] for words in instructions if words[0] == "FROM"]
    assert stages == ["sdk", "installed", "worker", "trainer"]
    entries = [" ".join(words[1:]) for words in instructions if words[0] == "ENTRYPOINT"]
    assert entries == ['["/opt/apache/beam/boot"]', '["pagepairs"]']
    assert ["COPY", "--from=sdk", "/opt/apache/beam", "/opt/apache/beam"] in instructions
    assert ["ENV", "HF_HUB_OFFLINE=${ENCODER:+1}"] in instructions  # baked weights: no download at run time


def test_the_dockerfile_is_clean() -> None:
    hadolint = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("no hadolint here")
    done = subprocess.run([hadolint, str(ROOT / "Dockerfile")], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
