"""The command line: maps a subcommand to the module that does it, and imports that module only when it is called."""

import importlib
import sys

from pagepairs import __version__

_STAGES, _SAMPLING = "pipeline.commands", "train.sampling_commands"
COMMANDS = {
    "run": (_STAGES, "all stages, one after the other: from a crawl to pair shards and a report"),
    "scan": (_STAGES, "reads the crawl: images, pages, links"),
    "embed": (_STAGES, "turns every kept image into a vector"),
    "pair": (_STAGES, "forms episodes and pairs, and filters them by similarity"),
    "shard": (_STAGES, "writes the pairs with their pixels, as trainers read them"),
    "report": (_STAGES, "shows what was kept and dropped, and why"),
    "calibrate": ("pipeline.calibrate", "finds the similarity band of one encoder from another's"),
    "benchmark": ("pipeline.benchmark", "builds an index of a test set, so that runs keep its images out"),
    "audit": ("pipeline.audit", "proves that finished pairs hold no image of a test set"),
    "train": ("train.commands", "trains an image-conditioned diffusion model on pair shards"),
    "inspect": ("pipeline.inspection", "shows rows and images of any dataset"),
    "sample": (_SAMPLING, "draws images from a trained model for conditions of your own"),
    "evaluate": (_SAMPLING, "scores a trained model, or two folders of images: FD or FID, precision, recall"),
}


def _usage() -> str:
    lines = [f"  {name:<11}{summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            f"pagepairs {__version__}: pairs of related images from web crawls, for image-conditioned diffusion models",
            "",
            "usage: pagepairs COMMAND [FLAGS]; pagepairs COMMAND --help teaches its flags",
            "",
            *lines,
            "",
            "a first run, without weights or network:  pagepairs run --input crawl.warc.gz --output out --encoder builtin",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """Runs a subcommand and returns its exit code; 2 stands for a wrong command, flag or setting."""
    args = sys.argv[1:] if argv is None else argv
    if not args or args[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0 if args else 2
    if args[0] == "--version":
        print(__version__)
        return 0
    if args[0] not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(args[0], COMMANDS, n=1, cutoff=0.0)[0]
        print(f"pagepairs: no command {args[0]!r}, the nearest is {near!r}; pagepairs --help lists all", file=sys.stderr)
        return 2
    module = importlib.import_module(COMMANDS[args[0]][0])
    code: int = module.main(args[0], args[1:])
    return code


if __name__ == "__main__":
    sys.exit(main())
