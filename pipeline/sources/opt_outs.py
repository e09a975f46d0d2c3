"""What owners of pages and images say against training: robots directives and the TDM reservation protocol."""

import re
from collections.abc import Iterable

_SEPARATORS = re.compile(r"[\s,;:]+")


def opt_out_of(robots: Iterable[str], reservations: Iterable[str]) -> str:
    """Returns the directive that keeps content out of training, "" where there is none.

    A directive that is addressed to one user agent ("otherbot: noai") counts too: its owner said no to training.

    Args:
      robots: values of X-Robots-Tag headers or robots meta elements.
      reservations: values of tdm-reservation headers or meta elements.

    Returns:
      "noai", "noimageai" or "tdm-reservation": the first that applies, in this order; or "".
    """
    words = {word for value in robots for word in _SEPARATORS.split(value.lower())}
    for directive in ("noai", "noimageai"):
        if directive in words:
            return directive
    return "tdm-reservation" if any(value.strip() == "1" for value in reservations) else ""
