"""One module per data set: each reads one official layout into a `Source` and describes itself by its `DATASET`.

Every module of this package is imported here, so a new file is all that a new data set needs.
"""

from importlib import import_module
from pkgutil import iter_modules

from manymask.data.datasets.base import Dataset

_MODULES = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
DATASETS: dict[str, Dataset] = {m.DATASET.name: m.DATASET for m in _MODULES if hasattr(m, "DATASET")}
