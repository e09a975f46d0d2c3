"""Calls a function in a child process: a decoder that crashes, hangs or is killed for its memory then costs one image, not the job.

A guard against accidents and no sandbox: a child has the rights of its parent. Children are kept for the next call, so there are as many
as threads that call at once, and each takes one call at a time. They end with their parent, however that ends.
"""

import atexit
import os
import pickle
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from pagepairs.images import ImageError

T = TypeVar("T")

_GRACE_S = 1.0  # a decoder that keeps its own time limit is given the time to say so
_idle: list["_Child"] = []


def isolated(function: Callable[..., T], *args: Any, timeout_s: float) -> T:
    """Returns function(*args), as a child process computes it; safe in threads.

    Where the child dies, a fresh one tries once more: what an earlier call left in its memory may have killed the first. So the outcome
    hangs on the arguments alone.

    Args:
      function: importable by its name; it, its arguments and its result are pickled.
      timeout_s: time in the function after which the child is killed, plus one second.

    Raises:
      ImageError: broken_image if the fresh child dies too, decode_timeout if the time is up; or what the function raises.
    """
    ending = 0
    for waiting in (_take(), None):
        child = waiting or _Child()
        reply = child.ask((function, args, timeout_s + _GRACE_S))
        if reply is not None:
            _idle.append(child)
            result, error = reply
            if error is not None:
                raise error
            return result  # type: ignore[no-any-return]
        ending = child.end()
        if ending == -signal.SIGALRM:
            raise ImageError("decode_timeout", "the decoder was stopped")
    raise ImageError("broken_image", f"the decoder crashed ({f'signal {-ending}' if ending < 0 else f'exit status {ending}'})")


def _take() -> "_Child | None":
    try:
        return _idle.pop()
    except IndexError:
        return None


@atexit.register
def end_children() -> None:
    """Ends the children that wait for a call."""
    while (child := _take()) is not None:
        child.end()


class _Child:
    """A process that answers calls; not multiprocessing's, which would import the program's main module again: Beam, in Beam's workers."""

    def __init__(self) -> None:
        self._connection, theirs = Pipe()
        with theirs:
            command = [sys.executable, "-P", "-m", __name__, str(theirs.fileno())]
            path = os.pathsep.join(filter(None, sys.path))
            self._process = subprocess.Popen(
                command, env=os.environ | {"PYTHONPATH": path}, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
            )

    def ask(self, request: tuple[Any, ...]) -> tuple[Any, Exception | None] | None:
        """Returns the result or the error of a call; None if the child died over it."""
        try:
            self._connection.send(request)
            reply, sizes = self._connection.recv()
            arrays = [bytearray(size) for size in sizes]
            for array in arrays:
                self._connection.recv_bytes_into(array)
            return pickle.loads(reply, buffers=arrays)  # type: ignore[no-any-return]
        except (EOFError, ConnectionError):
            return None
        except BaseException:  # an interrupt: the answer that is under way must not be taken for that of the next call
            self.end()
            raise

    def end(self) -> int:
        """Ends the child and returns its exit status, as subprocess does."""
        self._connection.close()
        self._process.kill()
        return self._process.wait()


def _serve(connection: Connection) -> None:
    """Answers calls until the parent hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process wherever it is, in a C library too
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with connection, suppress(EOFError, ConnectionError):
        while True:
            function, args, timeout_s = connection.recv()
            signal.setitimer(signal.ITIMER_REAL, timeout_s)
            reply: tuple[Any, Exception | None]
            try:
                reply = function(*args), None
            except Exception as error:  # all of them: the parent raises it
                reply = None, error
            signal.setitimer(signal.ITIMER_REAL, 0)
            arrays: list[pickle.PickleBuffer] = []  # pixels beside the pickle: two copies less
            packed = pickle.dumps(reply, 5, buffer_callback=arrays.append)
            connection.send((packed, [array.raw().nbytes for array in arrays]))
            for array in arrays:
                connection.send_bytes(array.raw())


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])))
