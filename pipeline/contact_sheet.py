"""Contact sheets: many small pictures on one PNG, each group of them with a caption."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from pagepairs.files import write_bytes
from pagepairs.stores import absolute
from pipeline.report_text import shorten

SIDE_PX = 160
GAP_PX = 2
MARGIN_PX = 16
CAPTION_PX = 24
SHEET_IMAGES = 8
"""Pictures side by side, at most."""
_FONT_PX = 13
_PAPER, _INK, _MISSING = (251, 251, 249), (26, 28, 30), (231, 230, 225)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """Pictures that belong together; a text instead of a picture says why it is missing."""

    images: tuple[Image.Image | str, ...]
    caption: str


def sheet_size(tiles: Sequence[Tile]) -> tuple[int, int]:
    """Returns width and height in pixels of the sheet for these tiles."""
    width, columns = _tile_width(tiles), _columns(tiles)
    rows = -(-len(tiles) // columns)
    return MARGIN_PX + columns * (width + MARGIN_PX), MARGIN_PX + rows * (SIDE_PX + CAPTION_PX + MARGIN_PX)


def _tile_width(tiles: Sequence[Tile]) -> int:
    images = max(len(tile.images) for tile in tiles)
    return images * SIDE_PX + (images - 1) * GAP_PX


def _columns(tiles: Sequence[Tile]) -> int:
    return max(1, min(len(tiles), SHEET_IMAGES // max(len(tile.images) for tile in tiles)))


def draw_sheet(path: str, tiles: Sequence[Tile]) -> None:
    """Writes the tiles as a PNG, row by row in their order."""
    sheet = Image.new("RGB", sheet_size(tiles), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_PX)
    width, columns = _tile_width(tiles), _columns(tiles)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        left, top = MARGIN_PX + column * (width + MARGIN_PX), MARGIN_PX + row * (SIDE_PX + CAPTION_PX + MARGIN_PX)
        for place, image in enumerate(tile.images):
            sheet.paste(_square(image, font), (left + place * (SIDE_PX + GAP_PX), top))
        draw.text((left, top + SIDE_PX + 5), _fit(tile.caption, width), fill=_INK, font=font)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    write_bytes(absolute(path), buffer.getvalue())


def _fit(text: str, width_px: int) -> str:
    """The built-in font knows Latin letters only, about 7 pixels wide."""
    return shorten(text.encode("ascii", "replace").decode(), max(8, width_px // 7)).replace("…", "...").replace("\n", " ")


def _square(image: Image.Image | str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> Image.Image:
    if isinstance(image, str):
        square = Image.new("RGB", (SIDE_PX, SIDE_PX), _MISSING)
        ImageDraw.Draw(square).text((SIDE_PX / 2, SIDE_PX / 2), image.replace("_", " "), fill=_INK, font=font, anchor="mm")
        return square
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return image.resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side), reducing_gap=2.0)
