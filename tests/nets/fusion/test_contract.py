"""Properties of all fusion networks."""

import pickle

import pytest
import torch
from fusion_modules import FUSION_MODULES

from skmm import nets
from skmm.nets import FusionModule

ALL = pytest.mark.parametrize("strategy", sorted(FUSION_MODULES))
LAYERED = ["attention", "bottleneck", "cross_attention"]  # transformers, which have heads
ADDITIVE = ["mean", "sum"]
SLOW = {"bottleneck"}  # to train


def trained(strategies):
    """Parametrize a test that trains networks."""
    marks = [pytest.param(s, marks=pytest.mark.slow if s in SLOW else ()) for s in strategies]
    return pytest.mark.parametrize("strategy", marks)


def test_each_public_network_is_tested():
    public = {getattr(nets, name) for name in nets.__all__}
    networks = {value for value in public if issubclass(value, FusionModule)}
    assert networks - {FusionModule} == set(FUSION_MODULES.values())


@pytest.fixture
def build(n_features):
    def make(strategy, n_components=8, **options):
        torch.manual_seed(0)
        return FUSION_MODULES[strategy](n_features, n_components, **options).eval()

    return make


def hidden(masks):
    return {name: ~mask.unsqueeze(-1) for name, mask in masks.items()}


@ALL
def test_shape_and_finite_without_any_modality(build, make_batch, strategy):
    tokens, masks = make_batch()
    fused = build(strategy)(tokens, masks)
    assert fused.shape == (6, 8)
    assert torch.isfinite(fused).all()  # row 4 has no modality


@ALL
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_absent_values_reach_neither_output_nor_gradient(build, make_batch, strategy, poison):
    fusion = build(strategy)
    tokens, masks = make_batch()
    clean = fusion(
        {
            k: t.masked_fill(h, 0.0)
            for (k, t), h in zip(tokens.items(), hidden(masks).values(), strict=True)
        },
        masks,
    )
    poisoned = {
        name: block.masked_fill(hidden(masks)[name], poison).requires_grad_()
        for name, block in tokens.items()
    }
    fused = fusion(poisoned, masks)
    assert torch.equal(fused, clean) or torch.allclose(fused, clean, atol=1e-6)
    fused.square().sum().backward()
    for name, block in poisoned.items():
        assert torch.isfinite(block.grad).all()
        assert (block.grad[~masks[name]] == 0).all()
        assert (block.grad[3] != 0).any(), f"{name} does not reach the output"
    for name, parameter in fusion.named_parameters():
        assert parameter.grad is not None, f"{name} is never used"
        assert torch.isfinite(parameter.grad).all(), name


@ALL
def test_order_of_the_dictionaries_does_not_matter(build, make_batch, strategy, n_features):
    tokens, masks = make_batch()
    turned = dict(reversed(n_features.items()))
    torch.manual_seed(0)
    other = FUSION_MODULES[strategy](turned, 8).eval()
    expected = build(strategy)(tokens, masks)
    got = other(dict(reversed(tokens.items())), dict(reversed(masks.items())))
    assert torch.equal(expected, got)


@ALL
def test_a_row_does_not_depend_on_its_batch(build, make_batch, strategy):
    fusion = build(strategy)
    tokens, masks = make_batch()
    together = fusion(tokens, masks)
    for row in range(6):
        alone = fusion(
            {k: t[row : row + 1] for k, t in tokens.items()},
            {k: m[row : row + 1] for k, m in masks.items()},
        )
        torch.testing.assert_close(alone[0], together[row], atol=1e-6, rtol=1e-5)


@ALL
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_rows_and_half_precision(build, make_batch, strategy, dtype):
    fusion = build(strategy).to(dtype)
    tokens, masks = make_batch(dtype=dtype)
    assert torch.isfinite(fusion(tokens, masks)).all()
    fused = fusion({k: t[:0] for k, t in tokens.items()}, {k: m[:0] for k, m in masks.items()})
    assert fused.shape == (0, 8)
    assert fused.dtype == dtype


@ALL
def test_padding_does_not_change_the_output(build, make_batch, strategy):
    fusion = build(strategy)
    tokens, masks = make_batch()
    padded = {k: torch.cat([t, torch.full_like(t, torch.nan)], dim=1) for k, t in tokens.items()}
    longer = {k: torch.cat([m, torch.zeros_like(m)], dim=1) for k, m in masks.items()}
    torch.testing.assert_close(fusion(padded, longer), fusion(tokens, masks), atol=1e-6, rtol=1e-5)


@ALL
def test_a_modality_without_tokens_is_absent(build, make_batch, strategy):
    fusion = build(strategy)
    tokens, masks = make_batch()
    absent = fusion(tokens, {**masks, "text": torch.zeros_like(masks["text"])})
    tokens["text"], masks["text"] = tokens["text"][:, :0], masks["text"][:, :0]
    torch.testing.assert_close(fusion(tokens, masks), absent, atol=1e-6, rtol=1e-5)


@ALL
def test_order_of_tokens_is_not_used(build, make_batch, strategy):
    fusion = build(strategy)
    tokens, masks = make_batch()
    turned = {name: block.flip(1) for name, block in tokens.items()}
    masks_turned = {name: mask.flip(1) for name, mask in masks.items()}
    torch.testing.assert_close(
        fusion(tokens, masks), fusion(turned, masks_turned), atol=1e-5, rtol=1e-4
    )


@ALL
def test_every_modality_alone_reaches_the_output(build, make_batch, strategy):
    fusion = build(strategy)
    tokens, masks = make_batch()
    for name in tokens:
        alone = {key: mask & (key == name) for key, mask in masks.items()}
        block = tokens[name].clone().requires_grad_()
        fused = fusion({**tokens, name: block}, alone)
        assert torch.isfinite(fused).all()
        fused.square().sum().backward()
        assert (block.grad[3] != 0).any()


@ALL
def test_absent_is_not_the_same_as_zero(build, make_batch, strategy):
    tokens, masks = make_batch()
    masks = {name: torch.ones_like(mask) for name, mask in masks.items()}
    tokens["image"] = torch.zeros_like(tokens["image"])
    fusion = build(strategy)
    there = fusion(tokens, masks)
    absent = fusion(tokens, {**masks, "image": torch.zeros_like(masks["image"])})
    assert not torch.allclose(there, absent, atol=1e-3)


@pytest.mark.slow
@ALL
def test_gradients_match_finite_differences(make_batch, n_features, strategy):
    torch.manual_seed(1)
    fusion = FUSION_MODULES[strategy](n_features, 4).double()
    tokens, masks = make_batch(n_tokens={"text": 2, "image": 1, "table": 1}, dtype=torch.float64)
    blocks = [tokens[name].requires_grad_() for name in n_features]
    parameters = [p for p in fusion.parameters() if p.numel() < 40]

    def fused(*inputs):
        return fusion(dict(zip(n_features, inputs[:3], strict=True)), masks)

    assert torch.autograd.gradcheck(fused, (*blocks, *parameters), fast_mode=True)


@ALL
def test_pickle_gives_the_same_network(build, make_batch, strategy):
    fusion = build(strategy)
    tokens, masks = make_batch()
    again = pickle.loads(pickle.dumps(fusion))
    assert torch.equal(fusion(tokens, masks), again(tokens, masks))


@ALL
def test_training_drops_units_and_evaluation_does_not(build, make_batch, strategy):
    tokens, masks = make_batch()
    fusion = build(strategy, dropout=0.5)
    assert torch.equal(fusion(tokens, masks), fusion(tokens, masks))
    fusion.train()
    assert not torch.equal(fusion(tokens, masks), fusion(tokens, masks))


@ALL
def test_names_that_torch_refuses_as_keys(strategy):
    n_features = {"type": 2, "a.b": 3, "items": 1}
    fusion = FUSION_MODULES[strategy](n_features, 4)
    tokens = {name: torch.ones(2, 1, width) for name, width in n_features.items()}
    masks = {name: torch.ones(2, 1, dtype=torch.bool) for name in n_features}
    assert fusion(tokens, masks).shape == (2, 4)


@pytest.mark.parametrize("strategy", sorted(set(FUSION_MODULES) - set(LAYERED)))
def test_one_modality_and_one_component(strategy):
    fusion = FUSION_MODULES[strategy]({"a": 3}, 1)
    tokens = {"a": torch.tensor([[[1.0, 2.0, 3.0]], [[-1.0, 0.0, 2.0]]])}
    fused = fusion(tokens, {"a": torch.ones(2, 1, dtype=torch.bool)})
    assert fused.shape == (2, 1)
    assert fused[0] != fused[1], "a layer normalization of one unit wipes it out"


@pytest.mark.slow
@trained(sorted(set(FUSION_MODULES) - {*ADDITIVE, "bottleneck"}))  # see test_bottleneck.py
def test_learns_interactions_of_modalities(xor_accuracy, strategy):
    assert xor_accuracy(FUSION_MODULES[strategy]) > 0.95


@trained(ADDITIVE)
def test_additive_under_a_linear_head(xor_accuracy, strategy):
    # An additive model gets three of the four corners right at best.
    assert xor_accuracy(FUSION_MODULES[strategy]) < 0.8


def test_a_linear_model_of_the_joined_modalities_is_at_chance(xor_accuracy):
    class Joined(FusionModule):
        def _fuse(self, tokens, masks):
            return torch.cat([block.flatten(start_dim=1) for block in tokens], dim=1)

    assert xor_accuracy(lambda widths, n, **_: Joined(widths, n), n_components=8) < 0.6


@pytest.mark.slow
@trained(["attention", "cross_attention"])
def test_reads_single_tokens(marked_word_accuracy, strategy):
    assert marked_word_accuracy(FUSION_MODULES[strategy]) > 0.9


@pytest.mark.slow
def test_pooled_tokens_are_not_enough(marked_word_accuracy):
    # The mean keeps the majority of the answers, but not which word has which.
    assert marked_word_accuracy(FUSION_MODULES["concat"]) < 0.85


@pytest.mark.parametrize("strategy", LAYERED)
class TestHeads:
    def test_must_divide_components(self, strategy):
        with pytest.raises(ValueError, match=r"n_components=10 is not a multiple.*=4.*=12"):
            FUSION_MODULES[strategy]({"a": 2}, 10)

    def test_one_component_is_too_few(self, strategy):
        with pytest.raises(ValueError, match="n_components must be at least 2, got 1"):
            FUSION_MODULES[strategy]({"a": 2}, 1, n_heads=1)

    def test_must_be_positive(self, strategy):
        with pytest.raises(ValueError, match="n_heads must be at least 1, got 0"):
            FUSION_MODULES[strategy]({"a": 2}, 8, n_heads=0)

    def test_one_modality(self, strategy):
        fusion = FUSION_MODULES[strategy]({"a": 3}, 4)
        tokens, mask = torch.randn(3, 5, 3), torch.ones(3, 5, dtype=torch.bool)
        mask[1], mask[2, 2:] = False, False
        fused = fusion({"a": tokens}, {"a": mask})
        assert torch.isfinite(fused).all()
        assert not torch.allclose(fused[0], fused[2], atol=1e-3)


class TestErrors:
    @pytest.fixture
    def fusion(self):
        class Total(FusionModule):
            def _fuse(self, tokens, masks):
                return sum(block.sum(dim=1) for block in tokens)

        return Total({"image": 2, "text": 2}, 2)

    @pytest.fixture
    def batch(self):
        tokens = {"image": torch.ones(3, 1, 2), "text": torch.ones(3, 2, 2)}
        return tokens, {k: torch.ones(t.shape[:2], dtype=torch.bool) for k, t in tokens.items()}

    def test_no_modalities(self):
        with pytest.raises(ValueError, match="ConcatFusionModule needs at least one modality"):
            FUSION_MODULES["concat"]({}, 4)

    def test_missing_key(self, fusion, batch):
        tokens, masks = batch
        del masks["text"]
        with pytest.raises(ValueError, match="Total: tokens or masks have no modality 'text'"):
            fusion(tokens, masks)

    def test_wrong_width(self, fusion, batch):
        tokens, masks = batch
        tokens["image"] = torch.ones(3, 1, 5)
        with pytest.raises(ValueError, match=r"tokens\['image'\].*n_tokens, 2\), got \(3, 1, 5\)"):
            fusion(tokens, masks)

    def test_two_dimensions(self, fusion, batch):
        tokens, masks = batch
        tokens["image"] = torch.ones(3, 2)
        with pytest.raises(ValueError, match=r"got \(3, 2\)"):
            fusion(tokens, masks)

    @pytest.mark.parametrize("mask", [torch.ones(3, 2, dtype=torch.bool), torch.ones(3, 1)])
    def test_wrong_mask(self, fusion, batch, mask):
        tokens, masks = batch
        with pytest.raises(ValueError, match=r"masks\['image'\] must be boolean of shape \(3, 1\)"):
            fusion(tokens, {**masks, "image": mask})

    def test_subclass_must_fuse(self):
        with pytest.raises(TypeError, match="_fuse"):
            FusionModule({"a": 1}, 1)


@ALL
def test_weights_of_modalities_and_tokens(build, make_batch, strategy):
    """Weights, where a network has them, are shares of present modalities and tokens."""
    fusion = build(strategy)
    weighted = {"attention", "bottleneck", "cross_gated", "gated"}
    assert hasattr(fusion, "weights") == (strategy in weighted)
    assert hasattr(fusion, "token_weights") == (strategy in LAYERED)
    tokens, masks = make_batch()
    poisoned = {
        name: block.masked_fill(hidden(masks)[name], float("nan")) for name, block in tokens.items()
    }
    rows = torch.tensor([1.0, 1, 1, 1, 0, 1])  # row 4 has no modality
    if strategy in LAYERED:
        shares = fusion.token_weights(poisoned, masks)
        assert list(shares) == list(fusion.modalities)
        assert all((shares[name][~masks[name]] == 0).all() for name in shares)
        assert all((shares[name][masks[name]] > 0).all() for name in shares)
        torch.testing.assert_close(sum(own.sum(dim=1) for own in shares.values()), rows)
    if strategy in weighted:
        weights = fusion.weights(poisoned, masks)
        present = torch.stack([masks[name].any(dim=1) for name in fusion.modalities], dim=1)
        assert weights.shape == (6, 3)
        assert ((weights > 0) == present).all()
        torch.testing.assert_close(weights.sum(dim=1), rows)
        if strategy in LAYERED:
            torch.testing.assert_close(
                weights, torch.stack([own.sum(dim=1) for own in shares.values()], dim=1)
            )
        one = fusion.weights(
            {name: block[2:3] for name, block in tokens.items()},
            {name: mask[2:3] for name, mask in masks.items()},
        )
        torch.testing.assert_close(one, weights[2:3], atol=1e-5, rtol=1e-4)
