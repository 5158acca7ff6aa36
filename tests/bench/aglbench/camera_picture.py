"""The camera service's test picture, made without the service's code, from the text of docs/media.md."""

import functools
from dataclasses import dataclass

from .checks import must

PALETTE = [(191, 191, 191), (191, 191, 0), (0, 191, 191), (0, 191, 0), (191, 0, 191), (191, 0, 0), (0, 0, 191), (0, 0, 0), (128, 128, 128)]
WHITE, BLACK, SQUARE = 0, 7, 8


@dataclass(frozen=True)
class Look:
    """What controls make of the picture."""

    brightness: int = 128
    mirrored: bool = False
    upside_down: bool = False
    grey: bool = False


@dataclass(frozen=True)
class Shape:
    """A format and a size."""

    fourcc: str
    width: int
    height: int

    @property
    def size(self) -> int:
        """Bytes of a picture."""
        return {"NV12": 3, "YU12": 3, "YUYV": 4, "RGB3": 6}[self.fourcc] * self.width * self.height // 2


def colour(cell: int, brightness: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """A colour of the palette as RGB and as YUV (BT.601 in integers, as docs/media.md has it)."""
    red, green, blue = (min(255, max(0, value + brightness - 128)) for value in PALETTE[cell])
    luma = (66 * red + 129 * green + 25 * blue + 128 >> 8) + 16
    return (red, green, blue), (luma, (-38 * red - 74 * green + 112 * blue + 128 >> 8) + 128, (112 * red - 94 * green - 18 * blue + 128 >> 8) + 128)


def lines(shape: Shape, number: int, look: Look) -> dict[str, list[int]]:
    """The three lines of cells that a picture is made of."""
    wide, side = shape.width // 2, shape.height // 2 // 4
    left = number * 2 % max(1, wide - side)
    bars = [SQUARE if look.grey else cell * 8 // wide for cell in range(wide)]
    square = list(bars)
    square[left:left + side] = [BLACK if look.grey else SQUARE] * side
    bit = max(1, wide // 32)
    digits = [WHITE if cell // bit < 32 and number >> (31 - cell // bit) & 1 else BLACK for cell in range(wide)]
    result = {"bars": bars, "square": square, "number": digits}
    return {name: cells[::-1] for name, cells in result.items()} if look.mirrored else result


@functools.lru_cache(maxsize=64)
def picture(shape: Shape, number: int, look: Look) -> bytes:
    """The test picture, made without the service's code."""
    table_ = [colour(cell, look.brightness) for cell in range(9)]
    high = shape.height // 2
    kinds = ["number" if row >= high - high // 8 else "square" if high // 4 <= row < high // 4 * 2 else "bars" for row in range(high)]
    if look.upside_down:
        kinds.reverse()
    cells = lines(shape, number, look)

    def plane(rows: int, of) -> bytes:
        made = {name: b"".join(bytes(of(*table_[cell])) for cell in line) * rows for name, line in cells.items()}
        return b"".join(made[kind] for kind in kinds)

    luma = functools.partial(plane, 2, lambda _, yuv: yuv[:1] * 2)
    if shape.fourcc == "NV12":
        return luma() + plane(1, lambda _, yuv: yuv[1:])
    if shape.fourcc == "YU12":
        return luma() + plane(1, lambda _, yuv: yuv[1:2]) + plane(1, lambda _, yuv: yuv[2:])
    if shape.fourcc == "YUYV":
        return plane(2, lambda _, yuv: (yuv[0], yuv[1], yuv[0], yuv[2]))
    return plane(2, lambda rgb, _: rgb * 2)


def number_of(shape: Shape, frame: bytes, look: Look) -> int:
    """The number that a picture shows in its lowest eighth."""
    step = {"NV12": 1, "YU12": 1, "YUYV": 2, "RGB3": 3}[shape.fourcc]
    row = shape.height - 2 if not look.upside_down else 1
    bit = max(1, shape.width // 2 // 32) * 2
    white = colour(WHITE, look.brightness)
    black = colour(BLACK, look.brightness)
    middle = ((white[0][0] + black[0][0]) if shape.fourcc == "RGB3" else (white[1][0] + black[1][0])) // 2
    number = 0
    for digit in range(32):
        at = digit * bit + bit // 2
        at = shape.width - 1 - at if look.mirrored else at
        number = number << 1 | (frame[(row * shape.width + at) * step] > middle)
    return number


def verify(shape: Shape, raw: bytes, look: Look = Look()) -> list[int]:
    """The numbers of the pictures, each of which must be right to the byte."""
    must(len(raw) > 0 and len(raw) % shape.size == 0, f"{len(raw)} bytes are no pictures of {shape.size}")
    numbers = []
    for at in range(0, len(raw), shape.size):
        frame = raw[at:at + shape.size]
        number = number_of(shape, frame, look)
        right = picture(shape, number, look)
        if frame != right:
            wrong = next(place for place in range(shape.size) if frame[place] != right[place])
            raise AssertionError(f"picture {at // shape.size} (number {number}) of {shape}: byte {wrong} is {frame[wrong]}, not {right[wrong]}")
        numbers.append(number)
    must(all(now < after for now, after in zip(numbers, numbers[1:])), f"the pictures are not in order: {numbers}")
    return numbers
