"""Made-up product pictures whose look follows from their category's path.

Level 1 chooses the backdrop, level 2 the shape of the product, level 3 its
colours, pattern and emblem. Position, size, turn, light, noise and a sticker
vary from view to view; a shift of colour belongs to the product. So siblings
are harder to tell apart than strangers, and several views tell more than one.
"""

import functools
import zlib
from typing import NamedTuple

import numpy as np
import simplejpeg

from pipeline import hashing
from pipeline.taxonomy import Taxonomy

SIZE = 180
_HALF = SIZE // 2  # Shapes are drawn at half size, a quarter of the work, and grain at full size.
_QUALITY = 75
_MARGIN = 20  # Furthest that a product moves from the middle, in pixels of half size, like all below.
_RADIUS = 24
_NOISE_LEVELS = 8
_MAX_LOBES = 8
_NOISE_TILE = 256
_EDGE = 0.1  # Width of an anti-aliased edge, in radii.


class _Polar(NamedTuple):
    """Polar coordinates around the middle of a canvas with room to move."""

    radius: np.ndarray
    cosines: np.ndarray  # Of k times the angle, for k lobes.
    sines: np.ndarray


class Look(NamedTuple):
    """What a category's pictures have in common.

    Attributes:
      backdrop: Colour, float of shape (3,), 0 to 255.
      horizon: Height of the table's edge, as a share of the picture.
      lobes: Number of lobes of the outline.
      depth: Depth of the lobes, as a share of the radius.
      aspect: Number of the canvas: round, tall or wide.
      body: Colour of the product.
      accent: Colour of its pattern.
      stripes: Rings of the pattern from the middle to the edge.
      emblem_lobes: Number of lobes of its emblem.
      emblem_size: Radius of the emblem, as a share of the product's.
    """

    backdrop: np.ndarray
    horizon: float
    lobes: int
    depth: float
    aspect: int
    body: np.ndarray
    accent: np.ndarray
    stripes: float
    emblem_lobes: int
    emblem_size: float


@functools.cache
def _canvases() -> tuple[_Polar, ...]:
    line = np.arange(_HALF + 2 * _MARGIN, dtype=np.float32) - (_HALF / 2 + _MARGIN)
    found = []
    for across, up in ((1.0, 1.0), (1.45, 0.8), (0.8, 1.45)):
        x, y = np.meshgrid(line * across, line * up)
        angle = np.arctan2(y, x)
        turns = [angle * lobes for lobes in range(_MAX_LOBES + 1)]
        found.append(_Polar(np.hypot(x, y), np.cos(turns), np.sin(turns)))
    return tuple(found)


@functools.cache
def _noise() -> np.ndarray:
    """Returns grain of rising strength: int16 of shape (_NOISE_LEVELS, _NOISE_TILE, _NOISE_TILE, 1)."""
    draws = hashing.uniform(np.arange(2 * _NOISE_TILE**2), 0).astype(np.float32)
    normal = (draws[::2] + draws[1::2] - 1).reshape(_NOISE_TILE, _NOISE_TILE)
    grain = normal + np.roll(normal, 1, 0) + np.roll(normal, 1, 1)  # About two pixels wide.
    strengths = np.linspace(2, 13, _NOISE_LEVELS, dtype=np.float32)[:, np.newaxis, np.newaxis, np.newaxis]
    return np.round(strengths * grain[..., np.newaxis]).astype(np.int16)


@functools.lru_cache(maxsize=8192)
def look(path: tuple[str, ...]) -> Look:
    """Returns the look of the category at a path; each level adds its part."""
    top = _draws(path[:1], 8)
    middle = _draws(path[:2], 8)
    leaf = _draws(path, 8)
    return Look(
        backdrop=_colour(float(top[0]), 0.05 + 0.30 * float(top[1]), 0.97),
        horizon=0.55 + 0.35 * float(top[2]),
        lobes=int(middle[0] * (_MAX_LOBES + 1)),
        depth=0.12 + 0.25 * float(middle[1]),
        aspect=int(middle[2] * 3),
        body=_colour(float(leaf[0]), 0.45 + 0.4 * float(leaf[1]), 0.45 + 0.45 * float(leaf[2])),
        accent=_colour(float(leaf[3]), 0.5, 0.25 + 0.7 * float(leaf[4])),
        stripes=2 + 6 * float(leaf[5]),
        emblem_lobes=int(leaf[6] * (_MAX_LOBES + 1)),
        emblem_size=0.25 + 0.3 * float(leaf[7]),
    )


def _draws(path: tuple[str, ...], count: int) -> np.ndarray:
    return hashing.uniform(np.arange(count), zlib.crc32("/".join(path).encode()))


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
    """Returns a colour, float32 of shape (3,) with values 0 to 255, from HSV in [0, 1]."""
    sector = (np.array([5.0, 3.0, 1.0]) + hue * 6) % 6
    return np.float32(255) * (value - value * saturation * np.clip(np.minimum(sector, 4 - sector), 0, 1)).astype(
        np.float32
    )


def draw(path: tuple[str, ...], *, product: int, view: int, seed: int) -> bytes:
    """Draws a view of a product.

    Args:
      path: Names of the category from level 1 down.
      product: Number of the product within its category.
      view: Number of the picture within the product.
      seed: Any integer.

    Returns:
      A baseline JPEG of 180x180 pixels, 4:2:0; the same for the same arguments.
    """
    style = look(path)
    own = hashing.uniform(np.arange(8) + 8 * product, seed ^ zlib.crc32("/".join(path).encode()))
    now = hashing.uniform(np.arange(16) + 16 * (8 * product + view), ~seed ^ zlib.crc32("/".join(path).encode()))
    picture = _backdrop(style, now)
    _paint_product(picture, style, own, now)
    _paint_sticker(picture, now)
    picture *= np.float32(0.8 + 0.35 * now[12])
    pixels = np.clip(_grainy(picture, now), 0, 255).astype(np.uint8)
    return bytes(simplejpeg.encode_jpeg(pixels, quality=_QUALITY, colorspace="RGB", colorsubsampling="420"))


def _grainy(picture: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Returns a picture at full size with grain: int16 of shape (SIZE, SIZE, 3)."""
    top, left = (now[10:12] * (_NOISE_TILE - SIZE)).astype(int)
    grain = _noise()[int(now[13] * _NOISE_LEVELS), top : top + SIZE, left : left + SIZE]
    return picture.astype(np.int16).repeat(2, axis=0).repeat(2, axis=1) + grain


def _backdrop(style: Look, now: np.ndarray) -> np.ndarray:
    picture = np.empty((_HALF, _HALF, 3), np.float32)
    edge = int(_HALF * (style.horizon + 0.08 * (now[0] - 0.5)))
    picture[:edge] = style.backdrop
    picture[edge:] = style.backdrop * np.float32(0.88)
    return picture


def _paint_product(picture: np.ndarray, style: Look, own: np.ndarray, now: np.ndarray) -> None:
    """Paints the product over a picture of shape (_HALF, _HALF, 3)."""
    canvas = _canvases()[style.aspect]
    top, left = (_MARGIN + (now[1:3] - 0.5) * 1.4 * _MARGIN).astype(int)
    window = np.s_[top : top + _HALF, left : left + _HALF]
    radius = canvas.radius[window] * np.float32(1 / (_RADIUS * (0.75 + 0.5 * now[3])))
    turn = 2 * np.pi * now[4]
    outline = _outline(canvas, window, style.lobes, style.depth, turn)
    body = _inside(outline, radius)
    pattern = np.abs((radius * np.float32(style.stripes) + np.float32(own[0])) % 2 - 1)
    emblem = _inside(_outline(canvas, window, style.emblem_lobes, 0.3, -turn) * np.float32(style.emblem_size), radius)
    shift = (own[1:4] - 0.5).astype(np.float32) * 70
    first, second = style.body + shift, style.accent + shift
    mixed = np.clip((pattern - 0.35) * 5, 0, 1) * (1 - emblem)
    for channel in range(3):
        colour = mixed * (first[channel] - second[channel]) + second[channel]
        picture[..., channel] += body * (colour - picture[..., channel])


def _outline(canvas: _Polar, window: tuple[slice, slice], lobes: int, depth: float, turn: float) -> np.ndarray:
    """Returns the radius of a lobed outline in the direction of each pixel."""
    across, along = np.float32(depth * np.cos(lobes * turn)), np.float32(depth * np.sin(lobes * turn))
    return 1 + canvas.cosines[lobes][window] * across - canvas.sines[lobes][window] * along


def _inside(outline: np.ndarray, radius: np.ndarray) -> np.ndarray:
    return np.clip((outline - radius) * np.float32(1 / _EDGE), 0, 1)


def _paint_sticker(picture: np.ndarray, now: np.ndarray) -> None:
    """Hides a part of some pictures, as shops do with price tags."""
    if now[5] < 0.35:
        height, width = (9 + 17 * now[6:8]).astype(int)
        top, left = (now[8:10] * (_HALF - 26)).astype(int)
        picture[top : top + height, left : left + width] = (250, 250, 245) if now[5] < 0.2 else (225, 40, 50)


def draw_category(tree: Taxonomy, label: int, *, product: int, view: int, seed: int) -> bytes:
    """Draws a view of a product of the category with a label of the tree, see `draw`."""
    return draw(tree.paths[label], product=product, view=view, seed=seed)
