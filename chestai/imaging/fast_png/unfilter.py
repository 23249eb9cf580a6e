"""Takes the filters off the rows of an 8-bit grey PNG, 63 rows at a time (PNG specification, W3C, 9 "Filtering").

Every filter but Up needs the pixel to the left, so a row offers nothing to do at once. But once a row is one pixel
ahead of the row below it, the two can go on side by side. So a block of rows is skewed and transposed:

    pixels of rows 0, 1, 2          after skewing          transposed: a step is what can be done at once
    a0 a1 a2 a3                     a0 a1 a2 a3 .  .       a0 .  .
    b0 b1 b2 b3                     .  b0 b1 b2 b3 .       a1 b0 .
    c0 c1 c2 c3                     .  .  c0 c1 c2 c3      a2 b1 c0
                                                           a3 b2 c1 ...

A step's lanes lie side by side in memory; the left neighbour of a lane is the same lane one step before, the one above
is the lane before it one step before, and that of both is the lane before it two steps before. Lane 0 is the last row
of the block before. Points left of the picture are 0, as the specification wants, because zeros predict zero.

A matrix of 64 rows is transposed by dealing out its quarters like playing cards, three times: an element's place is
written row first, and each time the two highest of the row's six bits become the lowest.

Only `chestai.imaging.fast_png.build` imports this module, for it needs numba. Compilers make vector instructions of an
inner loop only if its arrays start where the loop starts: hence the slices. They are written in C's manner for that.
"""

from numba import carray, njit
from numpy import uint8
from numpy.typing import NDArray

from chestai.imaging.fast_png.kernel import LANES, count_scratch_bytes

Bytes = NDArray[uint8]
FRESH = LANES - 1  # rows of a block; its first lane is the row above
SUB, UP, AVERAGE, PAETH = 1, 2, 3, 4  # filter types; 0 is None


@njit(error_model="numpy")
def copy(source: Bytes, target: Bytes, length: int) -> None:
    for i in range(length):
        target[i] = source[i]


@njit(error_model="numpy")
def deal(source: Bytes, target: Bytes, quarter: int) -> None:
    """Interleaves the four quarters of an array: a third of transposing (64, T) to (T, 64)."""
    first, second = source[:quarter], source[quarter : 2 * quarter]
    third, fourth = source[2 * quarter : 3 * quarter], source[3 * quarter : 4 * quarter]
    for i in range(quarter):
        target[4 * i] = first[i]
        target[4 * i + 1] = second[i]
        target[4 * i + 2] = third[i]
        target[4 * i + 3] = fourth[i]


@njit(error_model="numpy")
def gather(source: Bytes, target: Bytes, quarter: int) -> None:
    """The reverse of `deal`."""
    first, second = target[:quarter], target[quarter : 2 * quarter]
    third, fourth = target[2 * quarter : 3 * quarter], target[3 * quarter : 4 * quarter]
    for i in range(quarter):
        first[i] = source[4 * i]
        second[i] = source[4 * i + 1]
        third[i] = source[4 * i + 2]
        fourth[i] = source[4 * i + 3]


@njit(error_model="numpy")
def set_masks(rows: Bytes, stride: int, count: int, masks: Bytes) -> None:
    """Writes 255 where a lane has a filter and 0 elsewhere.

    Args:
        rows: (count * stride), each row with its filter type first.
        masks: (4 * LANES), Sub, Up, Average and Paeth in turn.
    """
    for lane in range(LANES):
        kind = rows[(lane - 1) * stride] if 0 < lane <= count else 0
        for index in range(4):
            masks[index * LANES + lane] = 255 if kind == index + 1 else 0


@njit(error_model="numpy")
def run(filtered: Bytes, masks: Bytes, steps: int, pixels: Bytes) -> None:
    """Undoes the filters step by step.

    The specification's Paeth predictor takes of left, above and corner what is nearest to left + above - corner, the
    first of equals. Its distances need nine bits and a sign; here they fit a byte. With `to_left` = |above - corner|
    and `to_above` = |left - corner|, `to_corner` is |to_left - to_above| if the corner lies between the others, and
    otherwise their sum, so never the smallest alone: any large number stands for it.

    Args:
        filtered: (steps * LANES).
        masks: From `set_masks`.
        pixels: ((steps + 2) * LANES + 1): two steps of zeros, and what is found. One further on than `filtered`, so
            that the first lane has something before it.
    """
    sub, up = masks[:LANES], masks[LANES : 2 * LANES]
    average, paeth = masks[2 * LANES : 3 * LANES], masks[3 * LANES : 4 * LANES]
    for step in range(steps):
        here = filtered[step * LANES : (step + 1) * LANES]
        before_last = pixels[step * LANES : (step + 1) * LANES]
        last = pixels[(step + 1) * LANES : (step + 2) * LANES + 1]
        found = pixels[(step + 2) * LANES + 1 : (step + 3) * LANES + 1]
        for lane in range(LANES):
            left, above, corner = last[lane + 1], last[lane], before_last[lane]
            low = left if left < above else above
            high = left if left > above else above
            to_left = uint8((above if above > corner else corner) - (above if above < corner else corner))
            to_above = uint8((left if left > corner else corner) - (left if left < corner else corner))
            further = to_left if to_left > to_above else to_above
            to_corner = uint8(further - (to_left if to_left < to_above else to_above))
            to_corner = uint8(255) if (corner <= low) | (corner >= high) else to_corner
            nearest = above if to_above <= to_corner else corner
            nearest = left if (to_left <= to_above) & (to_left <= to_corner) else nearest
            mean = uint8((left & above) + ((left ^ above) >> 1))
            predicted = (left & sub[lane]) | (above & up[lane]) | (mean & average[lane]) | (nearest & paeth[lane])
            found[lane] = uint8(here[lane] + predicted)


@njit(error_model="numpy")
def unfilter(rows: Bytes, height: int, width: int, grey: Bytes, scratch: Bytes) -> None:
    """Undoes the filters of all rows; the arguments are those of `entry`."""
    steps = width + FRESH
    size, stride = steps * LANES, width + 1
    quarter = size // 4
    masks, one, two = scratch[: 4 * LANES], scratch[4 * LANES :], scratch[4 * LANES + size :]
    pixels = scratch[4 * LANES + 2 * size + FRESH :]  # so that what `run` finds begins at a multiple of 64 bytes
    for i in range(2 * LANES + 1):
        pixels[i] = 0
    for lane in range(LANES):  # left of the picture: later blocks find the zeros of the one before
        for i in range(lane):
            one[lane * steps + i] = 0
    for i in range(width):
        one[i] = 0
    done = 0
    while done < height:
        count = FRESH if height - done > FRESH else height - done
        block = rows[done * stride :]
        set_masks(block, stride, count, masks)
        if done:
            copy(grey[(done - 1) * width :], one, width)
        for lane in range(1, count + 1):
            copy(block[(lane - 1) * stride + 1 :], one[lane * steps + lane :], width)
        deal(one, two, quarter)
        deal(two, one, quarter)
        deal(one, two, quarter)
        run(two, masks, steps, pixels)
        gather(pixels[2 * LANES + 1 :], one, quarter)
        gather(one, two, quarter)
        gather(two, one, quarter)
        for lane in range(1, count + 1):
            copy(one[lane * steps + lane :], grey[(done + lane - 1) * width :], width)
        done += count


SCRATCH = njit(error_model="numpy")(count_scratch_bytes)


def entry(rows, height, width, grey, scratch):  # type: ignore[no-untyped-def]
    """What is compiled: `unfilter` for C.

    Args:
        rows: Address of uint8 (height, 1 + width): filter types of at most 4, and filtered pixels.
        grey: Address for uint8 (height, width).
        scratch: Address for `count_scratch_bytes(width)` bytes.
    """
    taken = carray(scratch, (SCRATCH(width),))
    unfilter(carray(rows, (height * (width + 1),)), height, width, carray(grey, (height * width,)), taken)
