"""CSV and Parquet tables with a label column."""

from pathlib import Path

import numpy as np
import pandas as pd

from metanas.errors import MetanasError
from tasks.cache import InMemory
from tasks.sources import Where
from tasks.task import ImageForm, Task


def load(
    name: str,
    form: ImageForm,
    where: Where,
    path: Path,
    label: str,
    drop: list[str] | None = None,
    groups: str | None = None,
    separator: str = ",",
    licence: str = "unknown",
) -> list[Task]:
    """One tabular task: float32 rows (n, features), text columns one-hot (a missing text is a value of its own).

    Numbers come as they are: scaling belongs to the model, which knows its support set. Rows are counted from 1
    below the header in messages.
    """
    file = where.find(path)
    table = _read(file, separator)
    unused = [label, *(drop or []), *([groups] if groups else [])]
    if missing := [column for column in unused if column not in table.columns]:
        raise MetanasError(f"'{file}' has no column '{missing[0]}', it has {', '.join(map(str, table.columns))}.")
    for column in (label, groups):
        if column is not None and table[column].isna().any():
            row = int(np.flatnonzero(table[column].isna())[0]) + 1
            raise MetanasError(f"'{file}': row {row} has no value in column '{column}': fill it in or remove the row.")
    classes, labels = np.unique(table[label].to_numpy().astype(str), return_inverse=True)
    return [
        Task(
            name,
            "tabular",
            InMemory(_features(file, table.drop(columns=unused))),
            labels,
            tuple(classes.tolist()),
            groups=None if groups is None else table[groups].to_numpy().astype(str),
            licence=licence,
            origin=str(file),
        )
    ]


def _read(file: Path, separator: str) -> pd.DataFrame:
    try:
        if file.suffix.lower() in (".parquet", ".pq"):
            return pd.read_parquet(file)
        return pd.read_csv(file, sep=separator)
    except ImportError as error:
        raise MetanasError(
            f"'{file}' needs pyarrow to be read: install it (pip install 'metanas[parquet]'), or save it as CSV."
        ) from error
    except (ValueError, OSError) as error:  # pandas' and pyarrow's parser errors are both ValueErrors
        raise MetanasError(f"'{file}' cannot be read as a table ({error}): save it as CSV or Parquet.") from error


def _features(file: Path, table: pd.DataFrame) -> np.ndarray:
    """float32 (rows, features); MetanasError names a number that is missing or not finite."""
    if table.shape[1] == 0 or len(table) == 0:
        raise MetanasError(f"'{file}' has {len(table)} rows and {table.shape[1]} features: it needs some of each.")
    numeric = [column for column in table.columns if pd.api.types.is_numeric_dtype(table[column])]
    for column in numeric:
        bad = np.flatnonzero(~np.isfinite(table[column].to_numpy(dtype=np.float64, na_value=np.nan)))
        if len(bad):
            raise MetanasError(
                f"'{file}': column '{column}' has no number in {len(bad)} rows, first in row {bad[0] + 1}: "
                "fill them in, remove the rows or drop the column."
            )
    text = table.drop(columns=numeric)
    parts = [table[numeric].to_numpy(dtype=np.float32)]
    if text.shape[1]:
        filled = text.astype(object).where(text.notna(), "").astype(str)
        parts.append(pd.get_dummies(filled).to_numpy(dtype=np.float32))
    return np.concatenate(parts, axis=1)
