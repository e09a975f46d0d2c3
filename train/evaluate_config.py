"""The settings of `pagepairs evaluate`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What is scored, and how."""

    checkpoint: str = ""
    """Run or checkpoint of `pagepairs train` whose samples are scored."""
    images: str = ""
    """Folder of class folders with real images; some of them condition."""
    generated: str = ""
    """Instead of --checkpoint: folder of images that something else made; the subfolders do not matter."""
    real: str = ""
    """Real images to compare --generated with."""
    output: str = ""
    """Folder for evaluation.json, evaluation.html, manifest.json and the samples."""
    shots: int = 1
    """Conditions a class."""
    samples_per_condition: int = 10
    """Samples of each condition; a class then gives shots x samples-per-condition real images."""
    guidance: tuple[float, ...] = (0.0, 0.1, 0.3, 0.5, 0.7, 1.0)
    """Weights w of classifier-free guidance that are scored; 0 is plain conditional."""
    steps: int = 512
    """Sampling steps."""
    interpolation: float = 0.2
    """Between the lower (0) and the upper (1) variance of a sampling step; the paper's sentence allows 0.2 and 0.8."""
    neighbours: int = 3
    """k: a ball of precision and recall reaches to the k-th nearest image of its own set."""
    copiers_pass: bool = False
    """Allows N / K <= k, where a model that copies its conditions has full recall (full-shot figures)."""
    encoder: str = "dinov2-base"
    """Encoder of FD(encoder), of diversity and of alignment; any of `pagepairs run`."""
    encoder_weights: str = ""
    """Folder of a local checkpoint of --encoder; empty downloads from the hub."""
    condition_encoder: str = ""
    """Encoder of the conditions; empty takes what the checkpoint names, and any other is refused."""
    condition_weights: str = ""
    """Its weights, where they have moved since training."""
    inception_weights: str = ""
    """File weights-inception-2015-12-05-6726825d.pth; with it FID, precision and recall in its features are scored too."""
    training: str = ""
    """Shards, or folder, of the training images: how near samples come to one of them (memorisation)."""
    size: int = 0
    """With --generated: side in pixels that all images are resized and cropped to; 0 takes the size of the generated images."""
    seed: int = 0
    """Changes which images are chosen and every sample."""
    batch_size: int = 16
    """Images drawn at a time on a GPU; a CPU draws one a core, each by itself, so that its pixels never depend on the others."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the networks run."""

    def __post_init__(self) -> None:
        def require(good: bool, name: str, remedy: str) -> None:
            if not good:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: {remedy}")

        require(self.shots >= 1, "shots", "give at least 1")
        require(self.samples_per_condition >= 1, "samples_per_condition", "give at least 1")
        require(bool(self.guidance) and all(0 <= w < 1e3 for w in self.guidance), "guidance", "give one weight or more, 0 or above")
        require(len(set(self.guidance)) == len(self.guidance), "guidance", "give each weight once")
        require(self.steps >= 1, "steps", "give at least 1")
        require(0 <= self.interpolation <= 1, "interpolation", "give 0 (lower variance) to 1 (upper variance)")
        require(self.neighbours >= 1, "neighbours", "give at least 1")
        require(self.size == 0 or self.size >= 8, "size", "give 0 (automatic) or at least 8 pixels")
        require(0 <= self.seed < 2**63, "seed", "give a number from 0 to 2**63 - 1")
        require(self.batch_size >= 1, "batch_size", "give at least 1")

    def check(self) -> None:
        """Raises ValueError for flags that do not go together, or are missing."""
        if bool(self.generated) == bool(self.checkpoint):
            raise ValueError("give either --checkpoint with --images, or --generated with --real")
        if self.checkpoint and (self.real or not self.images):
            raise ValueError("--checkpoint takes its real images from --images, a folder of class folders, and no --real")
        if self.generated and (self.images or not self.real):
            raise ValueError("--generated takes its real images from --real, and no --images")
        if not self.output:
            raise ValueError("--output is missing: name the folder that the scores are written to")
