import numpy as np
import numpy.typing as npt

def measure(
    x: npt.NDArray[np.float64],
    fast: npt.NDArray[np.float64],
    slow: npt.NDArray[np.float64],
    missing: npt.NDArray[np.uint8],
    edges: npt.NDArray[np.int64],
    tones: npt.NDArray[np.float64],
    low: float,
    high: float,
    out: npt.NDArray[np.float64],
) -> None: ...
