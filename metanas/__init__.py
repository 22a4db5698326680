"""metanas: meta-learned neural architecture search across tasks.

The public names below are imported when first used, so that `import metanas` stays quick.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "MetanasError": "metanas.errors",
    "RunFolder": "metanas.run",
    "adapt": "metanas.commands.model",
    "check_pool": "tasks.check",
    "doctor": "metanas.commands.doctor:check_machine",
    "evaluate": "metanas.commands.evaluation",
    "evaluate_folders": "metanas.commands.evaluation",
    "load_config": "metanas.config",
    "load_model": "metanas.commands.model",
    "load_search": "metanas.config",
    "plan": "metanas.commands.planning",
    "predict": "metanas.commands.model",
    "read_pool": "metanas.assembly",
    "report": "metanas.commands.report",
    "retrain_predictor": "metanas.commands.retrain",
    "run_search": "metanas.commands.searching:search",  # metanas.search is a package
    "train": "metanas.commands.training",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'metanas' has no attribute '{name}'")
    module, _, function = _PUBLIC[name].partition(":")
    return getattr(import_module(module), function or name)
