"""The small sets that scikit-learn carries: handwritten digits (images), wine, iris and breast cancer (tables)."""

from typing import Literal

import numpy as np
from sklearn import datasets

from tasks.cache import InMemory, array_image, to_form
from tasks.task import ImageForm, Task

LICENCES = {
    "digits": "CC BY 4.0 (UCI, Alpaydin and Kaynak)",
    "wine": "CC BY 4.0 (UCI, Aeberhard and Forina)",
    "iris": "CC BY 4.0 (UCI, Fisher)",
    "breast_cancer": "CC BY 4.0 (UCI, Wolberg et al.)",
}


def load(name: str, form: ImageForm, set: Literal["digits", "wine", "iris", "breast_cancer"]) -> list[Task]:
    """One task: `digits` as images (bright ink on dark, 8x8 before resizing), the others as rows of float32."""
    bunch = getattr(datasets, f"load_{set}")()
    if set == "digits":
        shades = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # the files hold 0 to 16
        samples = np.stack([to_form(array_image(image, "a digit"), form) for image in shades])
    else:
        samples = bunch.data.astype(np.float32)
    return [
        Task(
            name,
            "image" if set == "digits" else "tabular",
            InMemory(samples),
            bunch.target.astype(np.int64),
            tuple(str(label) for label in bunch.target_names),
            licence=LICENCES[set],
            origin=f"scikit-learn {set}",
        )
    ]
