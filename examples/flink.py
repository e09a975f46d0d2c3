"""Runs a pagepairs command on a Flink of this machine: starts Beam's job server for it, runs the command there, stops the server.

python examples/flink.py --jars DIR pagepairs run --input crawl.warc.gz --output out
"""

import argparse
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

_START_S = 120.0
# Flink 1.16 looks into these packages of the Java library, which later Javas keep closed unless they are told.
_OPEN = ("java.lang", "java.util", "java.net", "java.io", "java.nio", "java.time", "java.util.concurrent")


@contextmanager
def job_server(jars: Path) -> Iterator[list[str]]:
    """Starts the server; yields the flags that send a job there.

    Args:
      jars: folder that Maven filled from flink.pom.xml.

    Raises:
      RuntimeError: if it does not start; its log is in the message.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    with TemporaryDirectory(prefix="pagepairs-flink-") as folder:
        log = Path(folder, "log")
        opens = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPEN]
        command = ["java", "-Xmx1g", *opens, "-cp", f"{jars}/*", "org.apache.beam.runners.flink.FlinkJobServerDriver"]
        flags = [f"--job-port={port}", "--artifact-port=0", "--expansion-port=0", f"--artifacts-dir={folder}/artifacts"]
        with log.open("wb") as file:
            server = subprocess.Popen([*command, *flags, "--flink-master=[local]"], stdout=file, stderr=file)
        try:
            _wait_for(port, server, log)
            yield ["--runner=FlinkRunner", "--flink_master=[local]", f"--job_endpoint=localhost:{port}"]
        finally:
            server.terminate()
            server.wait()


def _wait_for(port: int, server: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", port)) == 0:
                return
        time.sleep(0.2)
    raise RuntimeError(f"Beam's job server for Flink did not start:\n{log.read_text(errors='replace')[-4000:]}")


def main() -> int:
    """Returns the command's exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jars", type=Path, required=True)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    with job_server(args.jars) as flags:
        return subprocess.run([*args.command, *flags], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
