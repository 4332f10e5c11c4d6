"""Strategies of joint fusion: small objects that hold the options of a network and build it."""

import copy
import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any, ClassVar, TypeAlias

from sklearn.base import BaseEstimator
from torch import nn

from skmm import nets
from skmm._constraints import POSITIVE_INT, Interval

__all__ = [
    "STRATEGIES",
    "AttentionFusion",
    "BilinearFusion",
    "BottleneckFusion",
    "ConcatFusion",
    "CrossAttentionFusion",
    "CrossGatedFusion",
    "FilmFusion",
    "FusionStrategy",
    "GatedFusion",
    "LowRankFusion",
    "MaxFusion",
    "MeanFusion",
    "StrategyLike",
    "SumFusion",
    "make_strategy",
]


class FusionStrategy(BaseEstimator, ABC):
    """Base class of the strategies of joint fusion.

    A strategy of your own that has options is a subclass with a constructor that stores them, as
    that of any scikit-learn estimator does, and ``build``. One without needs no class:
    ``strategy=`` also takes an ``nn.Module`` and a function that makes one.

    Attributes
    ----------
    learning_rate : float
        Learning rate that suits the layers, used for ``learning_rate="auto"`` of a
        :class:`~skmm.fusion.Trainer`. It is a class attribute: 3e-4 for strategies with
        attention, 1e-3 for all others.

    See Also
    --------
    skmm.nets.FusionModule : Base class of the networks.

    Examples
    --------
    >>> from skmm import JointFusionClassifier
    >>> from skmm.fusion import FusionStrategy
    >>> from skmm.nets import MeanFusionModule
    >>> class Narrow(FusionStrategy):
    ...     def __init__(self, *, share=0.5):
    ...         self.share = share
    ...
    ...     def build(self, n_features, n_components, *, dropout):
    ...         return MeanFusionModule(n_features, n_components, dropout=self.share * dropout)
    >>> fusion = JointFusionClassifier(strategy=Narrow(share=0.25))
    >>> fusion.get_params()["strategy__share"]
    0.25
    """

    learning_rate: ClassVar[float] = 1e-3

    @abstractmethod
    def build(
        self, n_features: Mapping[str, int], n_components: int, *, dropout: float
    ) -> nn.Module:
        """Build the network that fuses modalities, with new weights.

        Parameters
        ----------
        n_features : mapping of str to int
            Width of the tokens of each modality, their number of features.
        n_components : int
            Width of the fused vector.
        dropout : float
            Fraction of the hidden units that is zeroed in training, in [0, 1].

        Returns
        -------
        fusion : nn.Module
            Called with a dictionary of tokens and one of masks, it returns a Tensor of shape
            (n_rows, n_components).
        """


class _ModuleStrategy(FusionStrategy):
    """Base of the strategies that build a module of skmm.nets, whose options they hold."""

    _module: ClassVar[Callable[..., nets.FusionModule]]
    _parameter_constraints: ClassVar[dict[str, Any]] = {}

    def build(
        self, n_features: Mapping[str, int], n_components: int, *, dropout: float
    ) -> nets.FusionModule:
        """Build the network that fuses modalities, with new weights.

        Parameters
        ----------
        n_features : mapping of str to int
            Width of the tokens of each modality, their number of features.
        n_components : int
            Width of the fused vector.
        dropout : float
            Fraction of the hidden units that is zeroed in training, in [0, 1].

        Returns
        -------
        fusion : FusionModule
            Called with a dictionary of tokens and one of masks, it returns a Tensor of shape
            (n_rows, n_components).
        """
        self._validate_params()
        options = self.get_params(deep=False)
        return type(self)._module(n_features, n_components, dropout=dropout, **options)


class ConcatFusion(_ModuleStrategy):
    """Concatenate the projected modalities, followed by a hidden layer.

    The common baseline of multimodal learning [1]_. A learned vector replaces an absent
    modality.

    See Also
    --------
    skmm.nets.ConcatFusionModule : The network.

    References
    ----------
    .. [1] Ngiam, Khosla, Kim, Nam, Lee, Ng, "Multimodal deep learning", ICML 2011.

    Examples
    --------
    >>> from skmm.fusion import ConcatFusion, JointFusionClassifier
    >>> JointFusionClassifier(strategy=ConcatFusion())
    JointFusionClassifier(strategy=ConcatFusion())
    """

    _module = nets.ConcatFusionModule


class MeanFusion(_ModuleStrategy):
    """Average the projections of the modalities that are present.

    All patterns of missing modalities are treated in the same way [1]_. With a linear head it is
    an additive model without interactions between modalities.

    See Also
    --------
    skmm.nets.MeanFusionModule : The network.

    References
    ----------
    .. [1] Havaei, Guizard, Chapados, Bengio, "HeMIS: hetero-modal image segmentation",
       MICCAI 2016.

    Examples
    --------
    >>> from skmm.fusion import JointFusionClassifier, MeanFusion
    >>> JointFusionClassifier(strategy=MeanFusion())
    JointFusionClassifier(strategy=MeanFusion())
    """

    _module = nets.MeanFusionModule


class MaxFusion(_ModuleStrategy):
    """Compute the maximum of the projections of the present modalities, unit by unit [1]_.

    See Also
    --------
    skmm.nets.MaxFusionModule : The network.

    References
    ----------
    .. [1] Feichtenhofer, Pinz, Zisserman, "Convolutional two-stream network fusion for video
       action recognition", CVPR 2016.

    Examples
    --------
    >>> from skmm.fusion import JointFusionClassifier, MaxFusion
    >>> JointFusionClassifier(strategy=MaxFusion())
    JointFusionClassifier(strategy=MaxFusion())
    """

    _module = nets.MaxFusionModule


class SumFusion(_ModuleStrategy):
    """Sum the projections of the modalities that are present.

    Evidence adds up [1]_: a second modality that agrees makes the prediction more certain, and an
    absent one contributes nothing.

    See Also
    --------
    skmm.nets.SumFusionModule : The network.

    References
    ----------
    .. [1] Feichtenhofer, Pinz, Zisserman, "Convolutional two-stream network fusion for video
       action recognition", CVPR 2016.

    Examples
    --------
    >>> from skmm.fusion import JointFusionClassifier, SumFusion
    >>> JointFusionClassifier(strategy=SumFusion())
    JointFusionClassifier(strategy=SumFusion())
    """

    _module = nets.SumFusionModule


class GatedFusion(_ModuleStrategy):
    """Weigh the modalities by gates, for each row and unit.

    The gated multimodal unit [1]_ with a softmax of the gates over the present modalities.
    ``modality_weights`` of the fitted fusion returns them.

    See Also
    --------
    skmm.nets.GatedFusionModule : The network.

    References
    ----------
    .. [1] Arevalo, Solorio, Montes-y-Gomez, Gonzalez, "Gated multimodal units for information
       fusion", ICLR 2017 workshop.

    Examples
    --------
    >>> from skmm.fusion import GatedFusion, JointFusionClassifier
    >>> JointFusionClassifier(strategy=GatedFusion())
    JointFusionClassifier(strategy=GatedFusion())
    """

    _module = nets.GatedFusionModule


class CrossGatedFusion(_ModuleStrategy):
    """Gate each modality by the other modalities.

    With two modalities, each has a gate computed from the other [1]_, as messages between parts of
    an image are gated in [2]_. The gates are sigmoids, not a softmax.

    See Also
    --------
    skmm.nets.CrossGatedFusionModule : The network.

    References
    ----------
    .. [1] Kiela, Grave, Joulin, Mikolov, "Efficient large-scale multi-modal classification",
       AAAI 2018.
    .. [2] Zeng, Ouyang, Yang, Yan, Wang, "Gated bi-directional CNN for object detection",
       ECCV 2016.

    Examples
    --------
    >>> from skmm.fusion import CrossGatedFusion, JointFusionClassifier
    >>> JointFusionClassifier(strategy=CrossGatedFusion())
    JointFusionClassifier(strategy=CrossGatedFusion())
    """

    _module = nets.CrossGatedFusionModule


class FilmFusion(_ModuleStrategy):
    """Scale and shift the units of the modalities by one of them.

    Feature-wise linear modulation [1]_, of each token of the other modalities alike.

    Parameters
    ----------
    condition : str, default=None
        Name of the modality that modulates the others; None is the first in alphabetical order.

    See Also
    --------
    skmm.nets.FilmFusionModule : The network.

    References
    ----------
    .. [1] Perez, Strub, de Vries, Dumoulin, Courville, "FiLM: visual reasoning with a general
       conditioning layer", AAAI 2018.

    Examples
    --------
    A question modulates the features of an image:

    >>> from skmm.fusion import FilmFusion, JointFusionClassifier
    >>> fusion = JointFusionClassifier(strategy=FilmFusion(condition="question"))
    >>> fusion.get_params()["strategy__condition"]
    'question'
    """

    _module = nets.FilmFusionModule
    _parameter_constraints: ClassVar[dict[str, Any]] = {"condition": [str, None]}

    def __init__(self, *, condition: str | None = None):
        self.condition = condition


class BilinearFusion(_ModuleStrategy):
    """Multiply each pair of modalities, by factorized bilinear pooling.

    Each pair gives weighted sums of all products of their units, whose weight matrices have a low
    rank [1]_. A constant 1 appended to the units keeps the terms of single modalities [2]_.
    Products of more than two modalities are computed by :class:`LowRankFusion`.

    Parameters
    ----------
    rank : int, default=8
        Rank of the weight matrix of each output and pair.

    See Also
    --------
    skmm.nets.BilinearFusionModule : The network.

    References
    ----------
    .. [1] Yu, Yu, Fan, Tao, "Multi-modal factorized bilinear pooling with co-attention learning
       for visual question answering", ICCV 2017.
    .. [2] Zadeh, Chen, Poria, Cambria, Morency, "Tensor fusion network for multimodal sentiment
       analysis", EMNLP 2017.

    Examples
    --------
    >>> from skmm.fusion import BilinearFusion, JointFusionClassifier
    >>> fusion = JointFusionClassifier(strategy=BilinearFusion(rank=4))
    >>> fusion.set_params(strategy__rank=2).strategy
    BilinearFusion(rank=2)
    """

    _module = nets.BilinearFusionModule
    _parameter_constraints: ClassVar[dict[str, Any]] = {"rank": POSITIVE_INT}

    def __init__(self, *, rank: int = 8):
        self.rank = rank


class LowRankFusion(_ModuleStrategy):
    """Multiply all modalities: a linear map, of low rank, of their outer product.

    Every output is a weighted sum over all products of units of different modalities: single
    ones, pairs, triples and so on. The rank of the weights is low, so that neither they nor the
    outer product are ever built [1]_.

    Parameters
    ----------
    rank : int, default=8
        Rank of the weight tensor.

    See Also
    --------
    skmm.nets.LowRankFusionModule : The network.

    References
    ----------
    .. [1] Liu, Shen, Lakshminarasimhan, Liang, Zadeh, Morency, "Efficient low-rank multimodal
       fusion with modality-specific factors", ACL 2018.

    Examples
    --------
    >>> from skmm.fusion import JointFusionClassifier, LowRankFusion
    >>> fusion = JointFusionClassifier(strategy=LowRankFusion(rank=4))
    >>> fusion.set_params(strategy__rank=2).strategy
    LowRankFusion(rank=2)
    """

    _module = nets.LowRankFusionModule
    _parameter_constraints: ClassVar[dict[str, Any]] = {"rank": POSITIVE_INT}

    def __init__(self, *, rank: int = 8):
        self.rank = rank


class AttentionFusion(_ModuleStrategy):
    """Apply self-attention to the tokens of all modalities, in one transformer.

    Self-attention [1]_ over one sequence of all tokens, as in one-stream vision and language models
    [2]_, read at a learned first token. The cost grows with the square of the number of all tokens.

    Parameters
    ----------
    n_heads : int, default=4
        Number of attention heads; ``n_components`` of the fusion must be a multiple of it.
    n_layers : int, default=1
        Number of transformer layers.

    See Also
    --------
    skmm.nets.AttentionFusionModule : The network.

    References
    ----------
    .. [1] Vaswani et al., "Attention is all you need", NeurIPS 2017.
    .. [2] Chen et al., "UNITER: universal image-text representation learning", ECCV 2020.

    Examples
    --------
    >>> from skmm.fusion import AttentionFusion, JointFusionClassifier
    >>> fusion = JointFusionClassifier(strategy=AttentionFusion(n_heads=2))
    >>> fusion.set_params(strategy__n_layers=2).strategy
    AttentionFusion(n_heads=2, n_layers=2)
    """

    learning_rate = 3e-4
    _module = nets.AttentionFusionModule
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_heads": POSITIVE_INT,
        "n_layers": POSITIVE_INT,
    }

    def __init__(self, *, n_heads: int = 4, n_layers: int = 1):
        self.n_heads = n_heads
        self.n_layers = n_layers


class CrossAttentionFusion(_ModuleStrategy):
    """Apply cross-attention from the tokens of each modality to those of each other one.

    Co-attention [1]_ for every ordered pair of modalities. Keys and values are the tokens before
    the first layer [2]_.

    Parameters
    ----------
    n_heads : int, default=4
        Number of attention heads; ``n_components`` of the fusion must be a multiple of it.
    n_layers : int, default=1
        Number of layers of each ordered pair.

    See Also
    --------
    skmm.nets.CrossAttentionFusionModule : The network.

    References
    ----------
    .. [1] Lu, Batra, Parikh, Lee, "ViLBERT: pretraining task-agnostic visiolinguistic
       representations for vision-and-language tasks", NeurIPS 2019.
    .. [2] Tsai, Bai, Liang, Kolter, Morency, Salakhutdinov, "Multimodal transformer for
       unaligned multimodal language sequences", ACL 2019.

    Examples
    --------
    >>> from skmm.fusion import CrossAttentionFusion, JointFusionClassifier
    >>> fusion = JointFusionClassifier(strategy=CrossAttentionFusion(n_heads=2))
    >>> fusion.set_params(strategy__n_layers=2).strategy
    CrossAttentionFusion(n_heads=2, n_layers=2)
    """

    learning_rate = 3e-4
    _module = nets.CrossAttentionFusionModule
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_heads": POSITIVE_INT,
        "n_layers": POSITIVE_INT,
    }

    def __init__(self, *, n_heads: int = 4, n_layers: int = 1):
        self.n_heads = n_heads
        self.n_layers = n_layers


class BottleneckFusion(_ModuleStrategy):
    """Apply a transformer to each modality, with a few tokens shared by all.

    Modalities exchange information through the shared tokens only [1]_. The cost grows with the
    square of the length of each sequence; that of :class:`AttentionFusion` grows with the square
    of their sum.

    Parameters
    ----------
    n_heads : int, default=4
        Number of attention heads; ``n_components`` of the fusion must be a multiple of it.
    n_layers : int, default=2
        Number of layers of each transformer, at least 2: what one writes into the shared tokens is
        read by the next.
    n_bottlenecks : int, default=4
        Number of tokens that the modalities share.

    See Also
    --------
    skmm.nets.BottleneckFusionModule : The network.

    References
    ----------
    .. [1] Nagrani, Yang, Arnab, Jansen, Schmid, Sun, "Attention bottlenecks for multimodal
       fusion", NeurIPS 2021.

    Examples
    --------
    >>> from skmm.fusion import BottleneckFusion, JointFusionClassifier
    >>> fusion = JointFusionClassifier(strategy=BottleneckFusion(n_bottlenecks=8))
    >>> fusion.set_params(strategy__n_heads=2).strategy
    BottleneckFusion(n_bottlenecks=8, n_heads=2)
    """

    learning_rate = 3e-4
    _module = nets.BottleneckFusionModule
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_heads": POSITIVE_INT,
        "n_layers": [Interval(Integral, 2, None, closed="left")],
        "n_bottlenecks": POSITIVE_INT,
    }

    def __init__(self, *, n_heads: int = 4, n_layers: int = 2, n_bottlenecks: int = 4):
        self.n_heads = n_heads
        self.n_layers = n_layers
        self.n_bottlenecks = n_bottlenecks


# The shorthands of ``strategy``.
STRATEGIES: dict[str, type[FusionStrategy]] = {
    "concat": ConcatFusion,
    "mean": MeanFusion,
    "max": MaxFusion,
    "sum": SumFusion,
    "gated": GatedFusion,
    "cross_gated": CrossGatedFusion,
    "film": FilmFusion,
    "bilinear": BilinearFusion,
    "low_rank": LowRankFusion,
    "attention": AttentionFusion,
    "cross_attention": CrossAttentionFusion,
    "bottleneck": BottleneckFusion,
}


# What ``strategy`` of a joint fusion may be.
StrategyLike: TypeAlias = (
    str | FusionStrategy | nn.Module | Callable[..., FusionStrategy | nn.Module]
)


def make_strategy(strategy: StrategyLike) -> FusionStrategy:
    """Return the strategy for a value of the parameter ``strategy``.

    Parameters
    ----------
    strategy : str, FusionStrategy, nn.Module or callable
        The name of a strategy, which has its default options; a strategy, or the class of one,
        which is called without arguments; a module, of which a copy is trained, so that the
        original stays as it is; or a class or function that is called as
        ``strategy(n_features, n_components, dropout=dropout)`` and returns a module.

    Returns
    -------
    strategy : FusionStrategy
        Its ``build`` makes the network.

    Raises
    ------
    ValueError
        If there is no strategy of this name.
    TypeError
        If it is none of these.

    Examples
    --------
    >>> from skmm.fusion import make_strategy
    >>> make_strategy("low_rank").set_params(rank=2)
    LowRankFusion(rank=2)
    >>> make_strategy("atention")
    Traceback (most recent call last):
    ...
    ValueError: There is no strategy 'atention': did you mean 'attention'? Strategies are \
'attention', 'bilinear', 'bottleneck', 'concat', 'cross_attention', 'cross_gated', 'film', \
'gated', 'low_rank', 'max', 'mean', 'sum'.
    """
    if isinstance(strategy, FusionStrategy):
        return strategy
    if isinstance(strategy, str):
        strategy = _named(strategy)
    if isinstance(strategy, type) and issubclass(strategy, FusionStrategy):
        made: FusionStrategy = strategy()
        return made
    if isinstance(strategy, nn.Module):
        return _ReadyModule(strategy)
    if callable(strategy):
        return _ModuleFactory(strategy)
    raise TypeError(
        "strategy must be a name, a FusionStrategy, a module, or a class or function that makes"
        f" one, got {type(strategy).__name__}. The names are {_names()}."
    )


class _ReadyModule(FusionStrategy):
    """Strategy of a given module, of which a copy is trained."""

    def __init__(self, module: nn.Module):
        self.module = module

    def build(
        self, n_features: Mapping[str, int], n_components: int, *, dropout: float
    ) -> nn.Module:
        return copy.deepcopy(self.module)


class _ModuleFactory(FusionStrategy):
    """Strategy of a class or function that returns a module."""

    def __init__(self, factory: Callable[..., object]):
        self.factory = factory

    def build(
        self, n_features: Mapping[str, int], n_components: int, *, dropout: float
    ) -> nn.Module:
        module: object = self.factory(n_features, n_components, dropout=dropout)
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"strategy {self.factory!r} gave a {type(module).__name__}. It must give a"
                " torch.nn.Module."
            )
        return module


def _named(name: str) -> type[FusionStrategy]:
    if name not in STRATEGIES:
        near = difflib.get_close_matches(name, STRATEGIES, n=1)
        hint = f": did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"There is no strategy {name!r}{hint} Strategies are {_names()}.")
    return STRATEGIES[name]


def _names() -> str:
    return ", ".join(map(repr, sorted(STRATEGIES)))
