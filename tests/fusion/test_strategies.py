"""Strategies as objects, and what stands for one: a name, a class, a function, a module."""

import inspect
import pickle

import pytest
import torch
from fusion_modules import FUSION_MODULES
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid
from torch import nn

from skmm import JointFusionClassifier, fusion
from skmm.fusion import (
    AttentionFusion,
    BilinearFusion,
    BottleneckFusion,
    CrossAttentionFusion,
    FilmFusion,
    FusionStrategy,
    LowRankFusion,
    MeanFusion,
    make_strategy,
)
from skmm.fusion._strategies import STRATEGIES
from skmm.nets import MeanFusionModule

WIDTHS = {"a": 2, "b": 3}
ALL = pytest.mark.parametrize("name", sorted(STRATEGIES))


def build(strategy, dropout=0.0):
    return make_strategy(strategy).build(WIDTHS, 8, dropout=dropout)


class Narrow(FusionStrategy):
    """A strategy of a user's own, with an option."""

    learning_rate = 0.01

    def __init__(self, share=0.5):
        self.share = share

    def build(self, n_features, n_components, *, dropout):
        return MeanFusionModule(n_features, n_components, dropout=self.share * dropout)


# --- the twelve --------------------------------------------------------------------------------


def test_each_network_has_a_strategy_that_is_exported():
    assert set(STRATEGIES) == set(FUSION_MODULES)
    for name, strategy in STRATEGIES.items():
        assert getattr(fusion, strategy.__name__) is strategy
        assert strategy.__name__ in fusion.__all__
        assert f"{strategy.__name__}Module" == FUSION_MODULES[name].__name__


@ALL
def test_name_class_and_object_are_the_same(name):
    for strategy in (name, STRATEGIES[name], STRATEGIES[name]()):
        module = build(strategy, 0.25)
        assert type(module) is FUSION_MODULES[name]
        assert module.n_components == 8
        assert {m.p for m in module.modules() if isinstance(m, nn.Dropout)} >= {0.25}
        attentive = name in {"attention", "cross_attention", "bottleneck"}
        assert make_strategy(strategy).learning_rate == (3e-4 if attentive else 1e-3)


@ALL
def test_parameters_are_the_options_of_the_network_and_keyword_only(name):
    shared = {"n_features", "n_components", "dropout"}
    options = set(inspect.signature(FUSION_MODULES[name]).parameters) - shared
    parameters = inspect.signature(STRATEGIES[name]).parameters
    assert set(parameters) == options == set(STRATEGIES[name]._parameter_constraints)
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters.values())


def test_defaults():
    assert AttentionFusion().get_params() == {"n_heads": 4, "n_layers": 1}
    assert CrossAttentionFusion().get_params() == {"n_heads": 4, "n_layers": 1}
    assert BottleneckFusion().get_params() == {"n_bottlenecks": 4, "n_heads": 4, "n_layers": 2}
    assert BilinearFusion().get_params() == LowRankFusion().get_params() == {"rank": 8}
    assert FilmFusion().get_params() == {"condition": None}


def test_options_arrive():
    assert build(LowRankFusion(rank=3)).rank == 3
    assert build(BilinearFusion(rank=3)).rank == 3
    attention = build(AttentionFusion(n_layers=5, n_heads=2))
    assert len(attention.layers) == 5
    assert {layer.self_attn.num_heads for layer in attention.layers} == {2}
    crossing = build(CrossAttentionFusion(n_layers=3, n_heads=2))
    assert {len(stack) for stack in crossing.stacks} == {3}
    assert {layer.n_heads for stack in crossing.stacks for layer in stack} == {2}
    assert build(FilmFusion(condition="b")).condition == "b"
    bottleneck = build(BottleneckFusion(n_bottlenecks=3, n_heads=2, n_layers=4))
    assert len(bottleneck.bottlenecks) == 3
    assert len(bottleneck.layers) == 4
    assert bottleneck.layers[0][0].self_attn.num_heads == 2


def test_same_seed_same_weights():
    def states():
        torch.manual_seed(7)
        return build("attention").state_dict()

    first, second = states(), states()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (AttentionFusion(n_heads=0), "'n_heads' parameter of AttentionFusion must be an int"),
        (AttentionFusion(n_layers=1.5), "'n_layers' parameter of AttentionFusion"),
        (CrossAttentionFusion(n_heads="4"), "'n_heads' parameter of CrossAttentionFusion"),
        (CrossAttentionFusion(n_layers=0), "'n_layers' parameter of CrossAttentionFusion"),
        (BottleneckFusion(n_layers=1), r"'n_layers' parameter of BottleneckFusion .* \[2, inf\)"),
        (BottleneckFusion(n_heads=0), "'n_heads' parameter of BottleneckFusion"),
        (BottleneckFusion(n_bottlenecks=0), "'n_bottlenecks' parameter of BottleneckFusion"),
        (BilinearFusion(rank=0), "'rank' parameter of BilinearFusion"),
        (LowRankFusion(rank=None), "'rank' parameter of LowRankFusion"),
        (FilmFusion(condition=3), "'condition' parameter of FilmFusion"),
        (FilmFusion(condition="c"), "condition='c' is none of the modalities"),
        (AttentionFusion(n_heads=3), "n_components=8 is not a multiple of n_heads=3"),
    ],
)
def test_wrong_options(strategy, message):
    with pytest.raises(ValueError, match=message):
        build(strategy)


def test_an_option_that_a_strategy_does_not_have():
    with pytest.raises(TypeError, match="unexpected keyword argument 'rank'"):
        AttentionFusion(rank=2)
    with pytest.raises(TypeError, match="MeanFusion.. takes no arguments"):
        MeanFusion(rank=2)
    with pytest.raises(ValueError, match="Invalid parameter 'rank' for estimator AttentionFusion"):
        AttentionFusion().set_params(rank=2)


# --- inside an estimator -----------------------------------------------------------------------


@ALL
def test_clone_and_pickle(name):
    strategy = STRATEGIES[name]()
    for other in (clone(strategy), pickle.loads(pickle.dumps(strategy))):
        assert type(other) is type(strategy)
        assert other is not strategy
        assert other.get_params() == strategy.get_params()
        assert repr(other) == repr(strategy)


def test_options_are_searched_through_the_estimator():
    estimator = JointFusionClassifier(strategy=AttentionFusion(n_heads=2))
    assert estimator.get_params()["strategy__n_heads"] == 2
    assert estimator.get_params()["strategy__n_layers"] == 1
    assert "strategy__n_heads" not in estimator.get_params(deep=False)
    heads = []
    for params in ParameterGrid({"strategy__n_heads": [1, 4]}):
        candidate = clone(estimator).set_params(**params)
        heads.append(candidate.strategy.n_heads)
    assert heads == [1, 4]
    assert estimator.strategy.n_heads == 2, "a candidate must not change the original"
    estimator.set_params(strategy=LowRankFusion(), strategy__rank=2)
    assert estimator.get_params()["strategy__rank"] == 2


# --- strategies of the user's own --------------------------------------------------------------


def test_a_strategy_of_the_user():
    estimator = clone(JointFusionClassifier(strategy=Narrow(0.2)))
    assert estimator.get_params()["strategy__share"] == 0.2
    module = build(estimator.strategy, dropout=0.5)
    assert {m.p for m in module.modules() if isinstance(m, nn.Dropout)} == {0.1}
    assert make_strategy(Narrow).learning_rate == make_strategy(Narrow()).learning_rate == 0.01
    with pytest.raises(TypeError, match="abstract"):
        FusionStrategy()


def test_by_class_and_function_of_a_module():
    assert type(build(MeanFusionModule)) is MeanFusionModule
    asked = {}

    def factory(n_features, n_components, *, dropout):
        asked.update(n_features=n_features, n_components=n_components, dropout=dropout)
        return nn.Identity()

    build(factory, 0.5)
    assert asked == {"n_features": WIDTHS, "n_components": 8, "dropout": 0.5}
    assert make_strategy(factory).learning_rate == 1e-3


def test_an_instance_is_copied():
    torch.manual_seed(0)
    original = MeanFusionModule(WIDTHS, 8)
    strategy = make_strategy(original)
    module = strategy.build(WIDTHS, 8, dropout=0.5)
    assert module is not strategy.build(WIDTHS, 8, dropout=0.5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert any((parameter != 0).any() for parameter in original.parameters())
    assert strategy.learning_rate == 1e-3


@pytest.mark.parametrize(
    ("strategy", "error", "message"),
    [
        ("bilinearr", ValueError, "'bilinearr': did you mean 'bilinear'. Str.* are 'attention'"),
        ("zzz", ValueError, "There is no strategy 'zzz'. Strategies are 'attention', 'bilinear'"),
        (3, TypeError, "must be a name, a FusionStrategy, a module, .*, got int"),
        (None, TypeError, "got NoneType. The names are 'attention'"),
        (lambda *_, **__: "net", TypeError, "gave a str. It must give a torch.nn.Module"),
    ],
)
def test_errors(strategy, error, message):
    with pytest.raises(error, match=message):
        build(strategy)
