"""Workers that end themselves at a moment of a stage, and runs to begin that stage with."""

import shutil
from pathlib import Path

from launch import ROOT

# What Python does first in a worker process: it notes the journal entries that are written, and ends after the first with SIGN in its path.
_HOOK = """
import os, signal, sys
if any("pipeline.local_workers" in word or "SdkHarness" in word for word in sys.orig_argv):
    replace = os.replace
    def noted(source, target, **more):
        replace(source, target, **more)
        if "/.work/" in target and target.endswith(".json"):
            with open(os.environ["NOTES"], "a") as file:
                print(target, file=file)
            if os.environ["SIGN"] in target and not os.path.exists(os.environ["KILLED"]):
                open(os.environ["KILLED"], "x").close()
                os.kill(os.getpid(), signal.SIGKILL)
    os.replace = noted
"""
_LEFT_BY = {
    "embed": ("embeddings", "drops/embed-builtin"),
    "pair": ("episodes", "candidates", "pairs", "drops/pair"),
    "shard": ("shards", "drops/shard"),
}


def kill_once(sign: str, folder: Path) -> dict[str, str]:
    """Returns the environment in which one worker is killed, once: then `killed` is in the folder, and `notes` lists journal entries."""
    (folder / "sitecustomize.py").write_text(_HOOK)
    return {"PYTHONPATH": f"{ROOT}:{folder}", "SIGN": sign, "KILLED": str(folder / "killed"), "NOTES": str(folder / "notes")}


def copy_before(stage: str, run: Path, output: Path) -> Path:
    """Copies a finished run without what the stage left."""
    shutil.copytree(run, output)
    for dataset in _LEFT_BY[stage]:
        shutil.rmtree(output / dataset)
    for folder in (output / ".work").glob(f"{stage}-*/"):
        shutil.rmtree(folder)
    return output
