"""Fusion networks by name, class or instance."""

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from skmm.nets.fusion._attention import AttentionFusionModule
from skmm.nets.fusion._base import FusionModule
from skmm.nets.fusion._bottleneck import BottleneckFusionModule
from skmm.nets.fusion._cross_attention import CrossAttentionFusionModule
from skmm.nets.fusion._film import FilmFusionModule
from skmm.nets.fusion._gated import CrossGatedFusionModule, GatedFusionModule
from skmm.nets.fusion._pooling import (
    ConcatFusionModule,
    MaxFusionModule,
    MeanFusionModule,
    SumFusionModule,
)
from skmm.nets.fusion._products import BilinearFusionModule, LowRankFusionModule

__all__ = ["STRATEGIES", "make_fusion"]

STRATEGIES: dict[str, type[FusionModule]] = {
    "concat": ConcatFusionModule,
    "mean": MeanFusionModule,
    "max": MaxFusionModule,
    "sum": SumFusionModule,
    "gated": GatedFusionModule,
    "cross_gated": CrossGatedFusionModule,
    "film": FilmFusionModule,
    "bilinear": BilinearFusionModule,
    "low_rank": LowRankFusionModule,
    "attention": AttentionFusionModule,
    "cross_attention": CrossAttentionFusionModule,
    "bottleneck": BottleneckFusionModule,
}


def make_fusion(
    strategy: str | Callable[..., nn.Module] | nn.Module,
    n_features: Mapping[str, int],
    n_components: int,
    dropout: float = 0.0,
    **options: Any,
) -> nn.Module:
    """Build the network that fuses modalities.

    Parameters
    ----------
    strategy : str, callable or Module
        A name in ``STRATEGIES``; a class or function that is called as
        ``strategy(n_features, n_components, dropout=dropout, **options)`` and gives a module;
        or a module, of which a copy is used, so that training leaves the original as it is.
    n_features : dict of str to int
        Length of the tokens of each modality.
    n_components : int
        Length of the fused vector.
    dropout : float, default=0.0
        Share of the hidden units that is zeroed in training, in [0, 1].
    **options : object
        What else the strategy takes, e.g. ``n_heads`` or ``rank``.

    Returns
    -------
    fusion : Module
        Called with a dictionary of tokens and one of masks, it gives a Tensor of shape
        (n_rows, n_components).

    Examples
    --------
    >>> from skmm.nets import make_fusion
    >>> type(make_fusion("low_rank", {"image": 8, "text": 4}, 16, rank=2)).__name__
    'LowRankFusionModule'
    >>> make_fusion("mean", {"image": 8, "text": 4}, 16, rank=2)
    Traceback (most recent call last):
    ...
    ValueError: strategy 'mean' takes no option 'rank'. It takes none.
    """
    if isinstance(strategy, nn.Module):
        if options:
            raise ValueError(
                f"strategy is a ready-made {type(strategy).__name__}, which takes no options, got"
                f" {sorted(options)}. Pass its class instead of the instance."
            )
        return copy.deepcopy(strategy)
    if isinstance(strategy, str):
        factory: Callable[..., nn.Module] = _named(strategy, options)
    elif callable(strategy):
        factory = strategy
    else:
        raise TypeError(
            f"strategy must be a name, a class or a module, got {type(strategy).__name__}. The"
            f" names are {sorted(STRATEGIES)}."
        )
    fusion = factory(n_features, n_components, dropout=dropout, **options)
    if not isinstance(fusion, nn.Module):
        raise TypeError(
            f"strategy {factory!r} gave a {type(fusion).__name__}. It must give a torch.nn.Module."
        )
    return fusion


def _named(name: str, options: Mapping[str, Any]) -> type[FusionModule]:
    if name not in STRATEGIES:
        raise ValueError(f"strategy {name!r} is not known. The names are {sorted(STRATEGIES)}.")
    strategy = STRATEGIES[name]
    shared = {"n_features", "n_components", "dropout"}
    known = [option for option in inspect.signature(strategy).parameters if option not in shared]
    for option in options:
        if option not in known:
            raise ValueError(
                f"strategy {name!r} takes no option {option!r}."
                f" It takes {', '.join(known) if known else 'none'}."
            )
    return strategy
