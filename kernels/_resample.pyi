import numpy as np
import numpy.typing as npt

def dot(
    x: npt.NDArray[np.float64],
    phases: npt.NDArray[np.float64],
    first: int,
    up: int,
    down: int,
    origin: int,
    y: npt.NDArray[np.float64],
) -> None: ...
