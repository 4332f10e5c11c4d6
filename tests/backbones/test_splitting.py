"""A model split into two parts: the same outputs, without effects on the original."""

import pytest
import torch
from torch import nn
from tuning import N_BLOCKS, deepened, needs_peft

from skmm.backbones._pretrained._efficientnet import EfficientNetLite0, _LiteTower
from skmm.backbones._pretrained._splitting import (
    LastBlocks,
    Trunk,
    add_lora,
    block_count,
    names_with_gradient,
    put_parameter,
    structure_of,
    without_layerdrop,
)


@pytest.fixture(scope="module")
def model(tiny_checkpoint, tmp_path_factory):
    from transformers import AutoModel

    def load(kind):
        folder = deepened(tiny_checkpoint(kind), tmp_path_factory.mktemp("deep") / kind)
        return Plain(AutoModel.from_pretrained(folder).eval().requires_grad_(False))

    return load


class Plain(nn.Module):
    """A transformers model with the outputs of a tower."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, **tensors):
        output = self.model(**tensors)
        return output.last_hidden_state, getattr(output, "pooler_output", None)


TEXTS = {
    "input_ids": torch.tensor([[2, 7, 8, 9, 3], [2, 7, 3, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
}
IMAGES = {"pixel_values": torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))}


@pytest.mark.slow
@pytest.mark.parametrize("n_blocks", [1, 2, N_BLOCKS])
@pytest.mark.parametrize("kind", ["bert", "roberta", "gpt2", "vit", "dinov2"])
def test_split_model_equals_the_whole(model, kind, n_blocks):
    tower = model(kind)
    inputs = IMAGES if kind in ("vit", "dinov2") else TEXTS
    assert block_count(tower) == N_BLOCKS
    hidden, pooled = Trunk(tower, n_blocks).eval()(**inputs)
    assert pooled is None
    head = LastBlocks(structure_of(tower), n_blocks, IMAGES).eval()
    given = {} if inputs is IMAGES else inputs
    with torch.no_grad():
        for whole, parts in zip(tower(**inputs), head(hidden=hidden, **given), strict=True):
            if whole is not None:
                torch.testing.assert_close(parts, whole)


@pytest.mark.parametrize("n_stages", [1, 2, 7])
def test_split_convolutional_network_equals_the_whole(n_stages):
    # Without gradients the model splits its batch, with gradients it does not.
    torch.manual_seed(0)
    tower = _LiteTower(EfficientNetLite0(64).requires_grad_(False)).eval()
    assert block_count(tower) == 7
    images = torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8)
    head = LastBlocks(structure_of(tower), n_stages, tower.blank).eval()
    with torch.no_grad():
        hidden = Trunk(tower, n_stages)(images=images)[0]
        assert len(hidden) == 6
        torch.testing.assert_close(head(hidden=hidden), tower(images=images))
    torch.testing.assert_close(head(hidden=hidden), tower(images=images))


def test_each_part_runs_its_own_blocks_only(model):
    tower = model("bert")
    runs = []
    trunk = Trunk(tower, 1)
    for i, block in enumerate(trunk.tower.model.encoder.layer):
        block.register_forward_hook(lambda *_, i=i: runs.append(i))
    trunk(**TEXTS)
    assert runs == [0, 1]
    runs.clear()
    head = LastBlocks(structure_of(tower), 1, {})
    for i, block in enumerate(head.tower.model.encoder.layer):
        for part in block.modules():
            if isinstance(part, nn.Linear):
                part.register_forward_hook(lambda *_, i=i: runs.append(i))
    head(hidden=torch.zeros(2, 5, 16), **TEXTS)
    assert set(runs) == {2}


def test_structures_share_tensors_only(model):
    tower = model("bert")
    copied = structure_of(tower)
    for one, other in zip(tower.parameters(), copied.parameters(), strict=True):
        assert one is other
    assert not set(map(id, tower.modules())) & set(map(id, copied.modules()))
    name, old = list(tower.named_parameters())[3]
    replaced = structure_of(tower, {id(old): nn.Parameter(old * 2)})
    torch.testing.assert_close(replaced.get_parameter(name), old * 2)
    put_parameter(copied, name, nn.Parameter(old * 3))
    torch.testing.assert_close(copied.get_parameter(name), old * 3)
    assert tower.get_parameter(name) is old


def test_trained_parameters_are_those_that_a_gradient_reaches(model):
    tower = model("bert")
    hidden = Trunk(tower, 1)(**TEXTS)[0]
    names = names_with_gradient(
        lambda new: LastBlocks(structure_of(tower, new), 1, {}),
        tower,
        lambda part: part(hidden=hidden, **TEXTS)[0],
    )
    # All of the last block; the pooler does not change the tokens.
    expected = [n for n, _ in tower.named_parameters() if n.startswith("model.encoder.layer.2.")]
    assert names == expected
    assert all(p.grad is None and not p.requires_grad for p in tower.parameters())


@needs_peft
def test_adapters_are_added_to_all_linear_layers_of_the_blocks(model):
    tower = model("bert")
    before = [name for name, _ in tower.named_parameters()]
    adapted = structure_of(tower)
    names = add_lora(adapted, {"r": 2}, needed_by="X")
    weights = dict(adapted.named_parameters())
    assert len(names) == N_BLOCKS * 6 * 2  # four projections and two of the feed-forward part
    assert all("encoder.layer" in name and 2 in weights[name].shape for name in names)
    with torch.no_grad():  # a new adapter changes nothing
        torch.testing.assert_close(adapted(**TEXTS), tower(**TEXTS))
    assert [name for name, _ in tower.named_parameters()] == before


@needs_peft
def test_wrong_adapter_options_are_refused(model):
    with pytest.raises(ValueError, match="X: peft does not take lora_params={'depth': 3}"):
        add_lora(structure_of(model("bert")), {"depth": 3}, needed_by="X")
    with pytest.raises(ValueError, match="X: fine_tune='lora' needs linear layers"):
        add_lora(_LiteTower(EfficientNetLite0()), {}, needed_by="X")


@needs_peft
@pytest.mark.parametrize("params", [{"init_lora_weights": "pissa"}, {"bias": "all"}])
def test_adapters_that_would_change_the_model_are_refused(model, params):
    tower = model("bert")
    with pytest.raises(ValueError, match="X: lora_params has .* shared with others"):
        add_lora(structure_of(tower), params, needed_by="X")
    assert not any(weight.requires_grad for weight in tower.parameters())


def test_layerdrop_and_augmentation_are_disabled(tiny_checkpoint):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(tiny_checkpoint("whisper")).get_encoder()
    model.layerdrop, model.config.apply_spec_augment = 0.9, True
    steady = without_layerdrop(structure_of(model))
    assert steady.layerdrop == 0.0 and steady.config.apply_spec_augment is False
    assert model.layerdrop == 0.9 and model.config.apply_spec_augment is True
