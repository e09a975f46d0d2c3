"""Which file an error is about, and what a user reads of it. Errors of workers come as text: Beam hands on no more."""

import errno
import re
from http import HTTPStatus
from urllib.parse import unquote

from pagepairs.config import Config
from pagepairs.stores import absolute, is_remote

EXIT_INPUT, EXIT_OUTPUT = 3, 4
_INPUT_ERRORS = (
    *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EIO),
    *(errno.ESTALE, errno.ETIMEDOUT, errno.ENXIO),
)
_OUTPUT_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM, errno.ENXIO),
    *(errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.EIO, errno.ESTALE, errno.ETIMEDOUT),
)
_REMEDIES = {
    errno.ENOSPC: "make room: ",
    errno.EDQUOT: "raise the quota or make room: ",
    errno.EACCES: "give the right to write there: ",
    errno.ETIMEDOUT: "try again later: ",
}
_GOES_ON = "finished files are whole, the same command goes on from them"
# A refusal of Google's storage, or a request that never got through: status, address, reason.
_REFUSED = re.compile(r"\b(\d{3}) (?:GET|HEAD|POST|PUT|PATCH|DELETE) (\S+?/b/\S+): ([^\n]*)")
_UNANSWERED = re.compile(r"Max retries exceeded with url: (\S*/b/\S+)")
_NO_CREDENTIALS = re.compile(r"(?:DefaultCredentialsError|RefreshError):? ([^\n':]*)")
_NO_OBJECT = re.compile(r"(gs://\S+): there is no such object")


def file_error(error: Exception, config: Config) -> tuple[str, int] | None:
    """Returns sentence and exit code of an error about a file; None for any other error."""
    text = f"{type(error).__name__}: {error}"
    return _credentials_error(text, config) or _local_error(text, config.run.output) or _store_error(text, config.run.output)


def _credentials_error(text: str, config: Config) -> tuple[str, int] | None:
    refused = _NO_CREDENTIALS.search(text)
    if not refused:
        return None
    path = next(filter(is_remote, config.scan.input), config.run.output)
    remedy = "run `gcloud auth application-default login`, or name a key file in GOOGLE_APPLICATION_CREDENTIALS"
    return _at(path, f"no credentials of Google Cloud that work ({_shorten(refused[1])}): {remedy}", config.run.output)


def _local_error(text: str, output: str) -> tuple[str, int] | None:
    found = re.findall(r"\[Errno (\d+)\] ([^:\n\[]*)(?:: '([^'\n]+)')?", text)
    if not found:
        return None
    number, words, path = int(found[-1][0]), found[-1][1].strip(), absolute(found[-1][2] or output)
    if _is_outputs(path, output):
        remedy = _REMEDIES.get(number, "")
        return (_output_sentence(output, words, remedy), EXIT_OUTPUT) if number in _OUTPUT_ERRORS else None
    if number in (errno.ENOSPC, errno.EDQUOT):  # the folder for temporary files, where objects are gathered before they are sent
        return f"{path}: {words}; {_REMEDIES[number]}{_GOES_ON}", EXIT_OUTPUT
    return (f"{path}: {words}", EXIT_INPUT) if number in _INPUT_ERRORS else None


def _store_error(text: str, output: str) -> tuple[str, int] | None:
    """What comes past `pagepairs.gcs`: Beam's own reads and writes in a store."""
    if refused := _REFUSED.search(text):
        status, address, reason = refused.groups()
        said = _shorten(reason) if re.match(r"(?!unknown error)\w", reason) else HTTPStatus(int(status)).phrase
        return _at(_object_of(address), f"Google's storage says {status} ({said})", output)
    if unanswered := _UNANSWERED.search(text):
        return _at(_object_of(unanswered[1]), "Google's storage does not answer", output)
    if absent := _NO_OBJECT.search(text):
        return _at(absent[1], "there is no such object", output)
    return None


def _at(path: str, what: str, output: str) -> tuple[str, int]:
    return (_output_sentence(output, what), EXIT_OUTPUT) if _is_outputs(path, output) else (f"{path}: {what}", EXIT_INPUT)


def _output_sentence(output: str, what: str, remedy: str = "") -> str:
    return f"--output {absolute(output)}: {what}; {remedy}{_GOES_ON}"


def _is_outputs(path: str, output: str) -> bool:
    """Whether a path is the output, something in it, or a folder above it that could not be made."""
    first, second = (f"{absolute(place)}/" for place in (path, output))
    return first.startswith(second) or second.startswith(first)


def _object_of(address: str) -> str:
    """Returns the path of the object or folder that a request was about."""
    bucket = re.findall(r"/b/([^/?]+)", address)[0]
    name = re.findall(r"/o/([^?]+)", address) or re.findall(r"[?&](?:prefix|name)=([^&]*)", address) or [""]
    return f"gs://{bucket}/{unquote(name[0])}".rstrip("/")


def _shorten(reason: str) -> str:
    return reason.strip().rstrip(".")[:200]
