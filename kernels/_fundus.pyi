import numpy as np
from numpy.typing import NDArray

def resample(
    photo: NDArray[np.uint8],
    first_row: NDArray[np.int32],
    row_weights: NDArray[np.int16],
    first_column: NDArray[np.int32],
    column_weights: NDArray[np.int16],
    out: NDArray[np.uint8],
) -> None: ...
def local_difference(
    pixels: NDArray[np.uint8],
    lo: NDArray[np.int32],
    hi: NDArray[np.int32],
    half: int,
    difference: NDArray[np.int16],
    magnitude: NDArray[np.int64],
) -> None: ...
def quantise(
    difference: NDArray[np.int16],
    lo: NDArray[np.int32],
    hi: NDArray[np.int32],
    gain: NDArray[np.int16],
    table: NDArray[np.int8],
    identity: bool,
    out: NDArray[np.int8],
) -> None: ...
def measure(
    pixels: NDArray[np.uint8],
    lo: NDArray[np.int32],
    hi: NDArray[np.int32],
    dark: int,
    bright: int,
    out: NDArray[np.int64],
) -> None: ...
def brightness_grid(photo: NDArray[np.uint8], step: int, grid: NDArray[np.uint8]) -> None: ...
def smooth(grid: NDArray[np.uint8], out: NDArray[np.uint8]) -> None: ...
def edge_points(grid: NDArray[np.uint8], level: int, points: NDArray[np.float64]) -> int: ...
def fit_circle(
    points: NDArray[np.float64],
    n: int,
    trials: int,
    r_min: float,
    r_max: float,
    tolerance: float,
    out: NDArray[np.float64],
) -> int: ...
def sectors(points: NDArray[np.float64], n: int, circle: NDArray[np.float64], tolerance: float) -> int: ...
