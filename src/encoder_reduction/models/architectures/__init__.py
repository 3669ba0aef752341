"""The encoder families that can be reduced, one small file each.

Adding a family is adding its file: every module of this package that defines ``FAMILY`` and
``PRUNED`` is registered when the package is imported.
"""

from importlib import import_module
from pkgutil import iter_modules

from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel
from transformers.initialization import no_init_weights

from ...errors import UserError
from .family import Family, Pruned, Sizes

__all__ = ["Family", "Pruned", "Sizes", "family_named", "family_of", "register", "sizes_of", "with_sizes"]

_families: dict[str, Family] = {}
_pruned: dict[str, type[PreTrainedModel]] = {}


def register(family: Family, pruned: type[PreTrainedModel]) -> None:
    """Make a family known here and its pruned variant known to the Auto classes.

    ``register_for_auto_class`` makes ``save_pretrained`` write the class beside the weights, so that
    anyone without this package reloads them with ``trust_remote_code=True``; registering it with the
    Auto classes lets this package reload them without executing a downloaded file.
    """
    _families[family.model_type] = _families[family.pruned_model_type] = family
    _pruned[family.model_type] = pruned
    pruned.config_class.register_for_auto_class()
    pruned.register_for_auto_class("AutoModelForSequenceClassification")
    AutoConfig.register(family.pruned_model_type, pruned.config_class, exist_ok=True)
    AutoModelForSequenceClassification.register(pruned.config_class, pruned, exist_ok=True)


for _info in iter_modules(__path__):
    _module = import_module(f"{__name__}.{_info.name}")
    if hasattr(_module, "FAMILY"):
        register(_module.FAMILY, _module.PRUNED)


def family_of(model: nn.Module) -> Family:
    """The family of a classifier.

    Raises:
        UserError: if its model type is not one of the registered families.
    """
    return family_named(model.config.model_type)


def family_named(model_type: str) -> Family:
    """The family of a model type, as a checkpoint's configuration states it.

    Raises:
        UserError: it is not one of the registered families.
    """
    if model_type not in _families:
        allowed = ", ".join(sorted(name for name in _families if not name.startswith("pruned-")))
        raise UserError(f"Model type '{model_type}' cannot be reduced; choose a checkpoint of one of: {allowed}.")
    return _families[model_type]


def sizes_of(model: nn.Module) -> Sizes:
    """The dimensions of a classifier's encoder."""
    return family_of(model).sizes(model.config)


def with_sizes(model: PreTrainedModel, sizes: Sizes) -> PreTrainedModel:
    """A classifier like another but for its dimensions, its weights yet to be filled in: they are whatever memory held.

    It is of the stock class where a stock configuration can say the dimensions, and of the family's pruned class where
    it cannot, or where the other is.
    """
    family = family_of(model)
    dims = {name: getattr(sizes, name) for name in family.config_names}
    config, cls = model.config, type(model)
    if not isinstance(model, Pruned) and not sizes.stock:
        cls = _pruned[family.model_type]
        values = config.to_dict()
        for derived in ("model_type", "architectures", "auto_map", "transformers_version"):
            values.pop(derived, None)
        config = cls.config_class(**values)
    if issubclass(cls, Pruned):
        dims["head_size"] = sizes.head_size
        for name in ("heads", "intermediate"):
            by_layer = list(getattr(sizes, f"{name}_by_layer"))
            dims[f"{name}_by_layer"] = by_layer if len(set(by_layer)) > 1 else None
    with no_init_weights():
        return cls(family.resized(config, **dims)).to(model.device).train(model.training)
