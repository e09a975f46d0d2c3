"""Errors about files become a sentence and an exit code, also where only a worker's text of them is left."""

import os

import pytest
from google.api_core import exceptions
from google.auth.exceptions import DefaultCredentialsError

from pagepairs.config import Config, RunConfig, ScanConfig
from pipeline.commands import main
from pipeline.file_errors import EXIT_INPUT, EXIT_OUTPUT, file_error

STORE = "https://storage.googleapis.com/storage/v1/b"
GOES_ON = "finished files are whole, the same command goes on from them"


def config(output: str, *inputs: str) -> Config:
    return Config(scan=ScanConfig(input=inputs), run=RunConfig(output=output))


REMOTE = config("gs://bucket/out", "gs://bucket/crawl/*.warc.gz")


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (
            exceptions.NotFound(f"GET {STORE}/bucket/o?projection=noAcl&prefix=crawl%2F: The specified bucket does not exist."),
            EXIT_INPUT,
            "gs://bucket/crawl: Google's storage says 404 (The specified bucket does not exist)",
        ),
        (
            exceptions.Forbidden(f"GET {STORE}/bucket/o/out%2Fconfig.json?alt=json: a@b does not have storage.objects.get access"),
            EXIT_OUTPUT,
            f"--output gs://bucket/out: Google's storage says 403 (a@b does not have storage.objects.get access); {GOES_ON}",
        ),
        (
            RuntimeError(
                "Traceback ...\ngoogle.api_core.exceptions.Forbidden: 403 POST https://storage.googleapis.com/upload/storage/v1/b/bucket"
                "/o?uploadType=multipart&name=out%2F.work%2Fscan%2Fa.json: no right to create [while running 'scan/Work']"
            ),
            EXIT_OUTPUT,
            f"--output gs://bucket/out: Google's storage says 403 (no right to create [while running 'scan/Work']); {GOES_ON}",
        ),
        (
            exceptions.NotFound(f"POST {STORE}/bucket/o?name=out%2Frun.json: ('Request failed with status code', 404, 'Expected one of')"),
            EXIT_OUTPUT,
            f"--output gs://bucket/out: Google's storage says 404 (Not Found); {GOES_ON}",
        ),
        (
            exceptions.RetryError("Timeout of 600.0s exceeded", ConnectionError(f"Max retries exceeded with url: {STORE}/bucket/o/x?a=b")),
            EXIT_INPUT,
            "gs://bucket/x: Google's storage does not answer",
        ),
        (FileNotFoundError("gs://bucket/crawl/a.warc.gz: there is no such object"), EXIT_INPUT, "gs://bucket/crawl/a.warc.gz: there is no"),
        (
            DefaultCredentialsError("Your default credentials were not found."),
            EXIT_INPUT,
            "gs://bucket/crawl/*.warc.gz: no credentials of Google Cloud that work (Your default credentials were not found): run `gcloud",
        ),
    ],
)
def test_errors_of_a_store(error: Exception, code: int, sentence: str) -> None:
    found = file_error(error, REMOTE)
    assert found is not None
    assert found[1] == code
    assert found[0].startswith(sentence)


def test_without_credentials_a_remote_output_is_what_cannot_be_used() -> None:
    found = file_error(DefaultCredentialsError("none"), config("gs://bucket/out", "/crawl"))
    assert found is not None
    assert (found[0].split(":")[0], found[1]) == ("--output gs", EXIT_OUTPUT)


@pytest.mark.parametrize(
    ("output", "error", "expected"),
    [
        ("/out", OSError(28, "No space left on device"), (f"--output /out: No space left on device; make room: {GOES_ON}", EXIT_OUTPUT)),
        (
            "/out",
            PermissionError(13, "Permission denied", "/out/images"),
            (f"--output /out: Permission denied; give the right to write there: {GOES_ON}", EXIT_OUTPUT),
        ),
        (
            "/mnt/out",
            PermissionError(13, "Permission denied", "/mnt"),
            (f"--output /mnt/out: Permission denied; give the right to write there: {GOES_ON}", EXIT_OUTPUT),
        ),
        ("/out", FileNotFoundError(2, "No such file or directory", "/output/c"), ("/output/c: No such file or directory", EXIT_INPUT)),
        (
            "gs://b/out",
            OSError(28, "No space left on device", "/tmp"),
            (f"/tmp: No space left on device; make room: {GOES_ON}", EXIT_OUTPUT),
        ),
        (
            "gs://b/out",
            OSError(28, "No space left on device"),
            (f"--output gs://b/out: No space left on device; make room: {GOES_ON}", EXIT_OUTPUT),
        ),
        ("gs://b/out", PermissionError(13, "Permission denied", "/crawl/a"), ("/crawl/a: Permission denied", EXIT_INPUT)),
        ("/out", RuntimeError("a bug of ours"), None),
    ],
)
def test_errors_of_this_machine(output: str, error: Exception, expected: tuple[str, int] | None) -> None:
    assert file_error(error, config(output, "/crawl")) == expected


def test_a_relative_output_is_named_from_the_root() -> None:
    found = file_error(OSError(28, "No space left on device"), config("out", "/crawl"))
    assert found is not None
    assert found[0].startswith(f"--output {os.path.abspath('out')}: ")


def test_a_command_whose_output_cannot_be_asked_exits_with_4(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A stage reads OUTPUT/config.json before anything else."""

    def no_client(process: int) -> None:
        raise DefaultCredentialsError("Your default credentials were not found.")

    monkeypatch.setattr("pagepairs.gcs._client", no_client)
    assert main("pair", ["--output", "gs://bucket/out"]) == EXIT_OUTPUT
    assert capsys.readouterr().err.startswith("pagepairs: --output gs://bucket/out: no credentials of Google Cloud that work (Your default")
