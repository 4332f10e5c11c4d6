"""Names, classes, functions and ready-made modules."""

import pytest
import torch
from torch import nn

from skmm import nets
from skmm.nets import STRATEGIES, MeanFusionModule, make_fusion

WIDTHS = {"a": 2, "b": 3}


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_by_name(name):
    fusion = make_fusion(name, WIDTHS, 8, 0.25)
    assert type(fusion) is STRATEGIES[name]
    assert fusion.n_components == 8
    assert {m.p for m in fusion.modules() if isinstance(m, nn.Dropout)} >= {0.25}


def test_options_arrive():
    assert make_fusion("low_rank", WIDTHS, 8, rank=3).rank == 3
    assert len(make_fusion("attention", WIDTHS, 8, n_layers=5, n_heads=2).layers) == 5
    assert make_fusion("film", WIDTHS, 8, condition="b").condition == "b"
    assert len(make_fusion("bottleneck", WIDTHS, 8, n_bottlenecks=3).bottlenecks) == 3


def test_by_class_and_function():
    assert type(make_fusion(MeanFusionModule, WIDTHS, 8)) is MeanFusionModule
    asked = {}

    def factory(n_features, n_components, *, dropout, **options):
        asked.update(n_features=n_features, n_components=n_components, dropout=dropout, **options)
        return nn.Identity()

    make_fusion(factory, WIDTHS, 8, 0.5, depth=2)
    assert asked == {"n_features": WIDTHS, "n_components": 8, "dropout": 0.5, "depth": 2}


def test_an_instance_is_copied():
    torch.manual_seed(0)
    original = MeanFusionModule(WIDTHS, 8)
    fusion = make_fusion(original, WIDTHS, 8)
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.zero_()
    assert any((parameter != 0).any() for parameter in original.parameters())


def test_same_seed_same_weights():
    def build():
        torch.manual_seed(7)
        return make_fusion("attention", WIDTHS, 8).state_dict()

    first, second = build(), build()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("strategy", "options", "error", "message"),
    [
        ("bilinearr", {}, ValueError, "'bilinearr' is not known. The names are .*'attention'"),
        ("mean", {"rank": 2}, ValueError, "'mean' takes no option 'rank'. It takes none"),
        ("attention", {"rank": 2}, ValueError, "It takes n_heads, n_layers"),
        (nn.Identity(), {"rank": 2}, ValueError, "ready-made Identity.*got .'rank'.*its class"),
        (3, {}, TypeError, "a name, a class or a module, got int"),
        (lambda *_, **__: "net", {}, TypeError, "gave a str. It must give a torch.nn.Module"),
    ],
)
def test_errors(strategy, options, error, message):
    with pytest.raises(error, match=message):
        make_fusion(strategy, WIDTHS, 8, **options)


def test_public_names_exist():
    assert len(nets.__all__) == len(set(nets.__all__))
    for name in nets.__all__:
        assert hasattr(nets, name)
