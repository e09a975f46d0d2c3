import pytest

from filters.sprite import sprite


@pytest.mark.parametrize(
    "name",
    [
        "sprite.png",
        "sprites.webp",
        "icons-sprite@2x.png",
        "css_sprite.gif",
        "sprites-3f2a9c01.png",
        "SPRITE_v3.png",
        "ui.sprite.min.png",
        "sprite-sheet.png",
    ],
)
def test_names_of_sheets(name: str) -> None:
    assert sprite(f"https://a.example/static/{name}?v=2") == "sprite"


@pytest.mark.parametrize(
    "name", ["sprite-can-330ml.jpg", "forest-sprite.jpg", "my-sprites-collection.jpg", "photo.jpg", "sprite", "sprite/photo.jpg", ""]
)
def test_names_that_say_more_are_kept(name: str) -> None:
    assert sprite(f"https://a.example/{name}") == ""
