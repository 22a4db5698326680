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
    "check_machine": "metanas.commands.doctor",
    "check_pool": "tasks.check",
    "enlarge": "metanas.commands.enlarging",
    "evaluate": "metanas.commands.evaluation",
    "load_config": "metanas.config",
    "load_model": "metanas.commands.model",
    "plan": "metanas.commands.planning",
    "predict": "metanas.commands.model",
    "retrain_predictor": "metanas.commands.retrain",
    "train": "metanas.commands.training",
    "write_report": "metanas.commands.report",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'metanas' has no attribute '{name}'")
    return getattr(import_module(_PUBLIC[name]), name)
