"""Drafters: whatever proposes tokens. One file each; importing this package registers all of them."""

from importlib import import_module
from pkgutil import iter_modules

from treille.drafters.base import ConfiguredDrafter, Drafter, Lookup, configured, drafter, parse, registry

PARTS = frozenset({"base", "governor", "speculation"})
"""Modules that are no drafters; so are those whose names begin with an underscore."""

for _module in iter_modules(__path__):
    if not _module.name.startswith("_") and _module.name not in PARTS:
        import_module(f"{__name__}.{_module.name}")

__all__ = ["PARTS", "ConfiguredDrafter", "Drafter", "Lookup", "configured", "drafter", "parse", "registry"]
