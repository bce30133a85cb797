import numpy as np
from numpy.typing import NDArray

def encode_body(
    samples: NDArray[np.int32],
    start: int,
    n: int,
    derivation: NDArray[np.uint8],
    first_frame: bool,
    weights: NDArray[np.int8],
    rates: NDArray[np.uint8],
    out: NDArray[np.uint8],
) -> int: ...
def decode_body(body: memoryview | bytes, out: NDArray[np.int32], start: int, n: int) -> bool: ...
def contexts(
    samples: NDArray[np.int32], weight: NDArray[np.int8], rate: int, shift: int
) -> tuple[bytes, bytes, bytes]: ...
def derive(samples: NDArray[np.int32], found: NDArray[np.uint8]) -> None: ...
