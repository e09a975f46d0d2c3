"""Beam's worker processes on this machine: one that dies fails the job, and none outlives the driver.

Beam's own handler of such processes waits for ever when one is killed, and a driver that is killed leaves processes behind that had work.
"""

import os
import sys
import threading
import time
from typing import Any

from apache_beam.portability import python_urns
from apache_beam.runners.portability import local_job_service
from apache_beam.runners.portability.fn_api_runner.worker_handlers import (
    BeamFnControlServicer,
    SubprocessSdkWorkerHandler,
    WorkerHandler,
)

_POLL_S = 0.2


class WorkerLost(RuntimeError):
    """A worker process ended in the middle of a job."""


class _WatchedWorker(SubprocessSdkWorkerHandler):  # type: ignore[misc]
    """Starts a worker process that ends with this one; where it ends early, whoever waits for its answers gets an error."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._stopped = threading.Event()

    def start_worker(self) -> None:
        """Starts the process, and a thread that waits for its end."""
        # `exec` makes it a direct child of this process, whatever the shell.
        command = f"exec {sys.executable} -m pipeline.local_workers {os.getpid()}"
        self.worker = local_job_service.SubprocessSdkWorker(command.encode(), self.control_address, self.provision_info, self.worker_id)
        self.worker_thread = threading.Thread(name="run_worker", target=self._run, daemon=True)
        self.worker_thread.start()

    def stop_worker(self) -> None:
        """Waits for the end of the process, which one that was still starting must be told to come to."""
        self._stopped.set()
        self.control_conn.push(BeamFnControlServicer._DONE_MARKER)
        self.worker_thread.join()

    def _run(self) -> None:
        try:
            self.worker.run()
        except RuntimeError as error:
            lost = WorkerLost(f"a worker process died ({error}); finished work is kept, the same command goes on from it")
            while True:  # an instruction that is handed to it later must fail too
                self.control_conn.abort(lost)
                if self._stopped.wait(_POLL_S):
                    return


def watch_workers() -> None:
    """Makes Beam start its worker processes as above; doing it again changes nothing."""
    WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)(_WatchedWorker)


def end_with(pid: int) -> None:
    """Ends this process, a child of process `pid`, soon after that has ended, whatever it is doing then."""

    def wait() -> None:
        while os.getppid() == pid:  # a child that lost its parent gets another; any system tells so
            time.sleep(_POLL_S)
        os._exit(1)

    threading.Thread(target=wait, name="end_with", daemon=True).start()


if __name__ == "__main__":
    from apache_beam.runners.worker import sdk_worker_main

    end_with(int(sys.argv[1]))
    sdk_worker_main.main([])
