"""Opt-outs in headers and meta elements."""

import pytest

from filters.opt_out import directive_of, opt_out_directive


@pytest.mark.parametrize(
    ("name", "content", "want"),
    [
        ("X-Robots-Tag", "noai", "noai"),
        ("x-robots-tag", "noindex, NoImageAI", "noimageai"),
        ("X-Robots-Tag", "noimageai, noai", "noai"),
        ("X-Robots-Tag", "examplebot: noindex, noai", "noai"),
        ("X-Robots-Tag", "unavailable_after: 25 Jun 2030 15:00:00 PST, noai", "noai"),
        ("X-Robots-Tag", "noindex, noimageindex, none", ""),
        ("X-Robots-Tag", "noairplanes", ""),
        ("X-Robots-Tag", "", ""),
        ("robots", "noai, noimageai", "noai"),
        (" Robots ", "NOAI", "noai"),
        ("examplebot", "noimageai", "noimageai"),
        ("description", "noai", ""),
        ("keywords", "noai, noimageai", ""),
        ("tdm-reservation", "1", "tdm-reservation"),
        ("TDM-Reservation", " 1 ", "tdm-reservation"),
        ("tdm-reservation", "0", ""),
        ("tdm-policy", "https://example.org/policy.json", ""),
    ],
)
def test_directive(name: str, content: str, want: str) -> None:
    assert directive_of(name, content) == want


def test_headers_may_repeat_and_the_first_opt_out_is_named() -> None:
    headers = [("Content-Type", "image/png"), ("X-Robots-Tag", "noindex"), ("X-Robots-Tag", "noimageai"), ("tdm-reservation", "1")]
    assert opt_out_directive(headers) == "noimageai"
    assert opt_out_directive(headers[:2]) == ""
    assert opt_out_directive([]) == ""
