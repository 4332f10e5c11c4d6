"""ModuleEncoder: any module, frozen and stored, or trained."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch import nn

from skmm import ModuleEncoder
from skmm.encoders._store._fingerprint import module_digest
from skmm.exceptions import CellTypeError, MediaDecodeError, ModalityWarning


def vectors(n=6, width=4, seed=0):
    rng = np.random.default_rng(seed)
    cells = rng.normal(size=(n, width)).astype(np.float32)
    return pd.DataFrame({"spectrum": pd.Series(list(cells), dtype=object)}), cells


def linear(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(4, 3)


class TestFrozen:
    def test_equals_the_module(self):
        X, cells = vectors()
        module = linear()
        encoder = ModuleEncoder(module, batch_size=4).fit(X)
        expected = module(torch.from_numpy(cells)).detach().numpy()
        np.testing.assert_allclose(encoder.transform(X), expected, atol=1e-6)
        assert encoder.n_outputs_ == 3 and encoder.checkpoint_ is None
        assert list(encoder.get_feature_names_out()) == [f"spectrum_{i}" for i in range(3)]

    def test_runs_in_eval_mode_and_is_not_changed(self):
        X, _ = vectors()
        module = nn.Sequential(linear(), nn.BatchNorm1d(3), nn.Dropout(0.9)).train()
        before = {name: t.clone() for name, t in module.state_dict().items()}
        encoder = ModuleEncoder(module, store=False).fit(X)
        np.testing.assert_array_equal(encoder.transform(X), encoder.transform(X))
        assert module.training
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, before[name])

    def test_tokens(self):
        class Steps(nn.Module):
            def forward(self, x):
                return x[:, :, None] * torch.tensor([1.0, 2.0])  # (n, 4 tokens, width 2)

        X, cells = vectors()
        encoder = ModuleEncoder(Steps()).fit(X)
        tokens, mask = encoder.transform_sequence(X)
        np.testing.assert_allclose(tokens, cells[:, :, None] * [1.0, 2.0], atol=1e-6)
        assert mask.all()
        np.testing.assert_allclose(encoder.transform(X), tokens.mean(axis=1), atol=1e-6)

    def test_read_and_collate(self, tmp_path):
        """Files of several lengths, padded by a function that returns their mask."""
        lengths = [3, 5, 1]
        for i, n in enumerate(lengths):
            np.save(tmp_path / f"{i}.npy", np.arange(1, n + 1, dtype=np.float32))

        def pad(cells):
            lengths = torch.tensor([len(cell) for cell in cells])
            values = nn.utils.rnn.pad_sequence(list(map(torch.as_tensor, cells)), True)
            return {"values": values, "mask": torch.arange(values.shape[1]) < lengths[:, None]}

        class Keep(nn.Module):
            def forward(self, values, mask):
                return values[:, :, None], mask

        X = pd.DataFrame({"file": [str(tmp_path / f"{i}.npy") for i in range(3)]})
        encoder = ModuleEncoder(Keep(), read=np.load, collate=pad).fit(X)
        np.testing.assert_allclose(encoder.transform(X)[:, 0], [2.0, 3.0, 1.0])
        tokens, mask = encoder.transform_sequence(X)
        assert mask.sum(axis=1).tolist() == lengths
        assert tokens[1, :, 0].tolist() == [1, 2, 3, 4, 5]

    def test_texts_with_a_collate_function(self):
        encoder = ModuleEncoder(
            nn.Identity(), collate=lambda texts: torch.tensor([[float(len(t))] for t in texts])
        )
        assert encoder.fit_transform(["a", "bcd", None])[:2, 0].tolist() == [1.0, 3.0]

    def test_several_columns(self):
        X, cells = vectors()
        X["other"] = X["spectrum"].iloc[::-1].to_numpy()
        X.loc[2, "other"] = None
        features = ModuleEncoder(linear()).fit_transform(X)
        assert features.shape == (6, 6)
        np.testing.assert_array_equal(features[0, 3:], features[5, :3])
        assert np.isnan(features[2, 3:]).all() and np.isfinite(features[2, :3]).all()

    def test_a_cell_that_cannot_be_read(self):
        def read(cell):
            if cell == "bad":
                raise MediaDecodeError("Cannot read it.")
            return np.ones(4)

        X = pd.DataFrame({"file": ["good", "bad"]}, index=["a", "b"])
        encoder = ModuleEncoder(linear(), read=read)
        with pytest.raises(MediaDecodeError, match="Column 'file', row 'b': Cannot read") as caught:
            encoder.fit(X).transform(X)
        assert (caught.value.column, caught.value.row) == ("file", "b")
        encoder.set_params(on_error="missing")
        with pytest.warns(ModalityWarning, match="row 'b' of 'file'"):
            features = encoder.fit(X).transform(X)
        assert np.isnan(features).all(axis=1).tolist() == [False, True]

    @pytest.mark.parametrize("cell", ["text", object(), {"a": 1}])
    def test_an_opaque_cell_is_named(self, cell):
        X, _ = vectors(3)
        X["spectrum"] = pd.Series([*X["spectrum"][:2], cell], dtype=object)
        with pytest.raises(CellTypeError, match="ModuleEncoder: Column 'spectrum', row 2: .*read="):
            ModuleEncoder(linear()).fit(X.iloc[:2]).transform(X)

    def test_a_module_that_gives_no_vectors(self):
        X, _ = vectors()

        class Sums(nn.Module):
            def forward(self, x):
                return x.sum(1)

        with pytest.raises(ValueError, match=r"Sums returned \(.*\). It must return"):
            ModuleEncoder(Sums()).fit(X)
        with pytest.raises(ValueError, match="cannot determine the width of the module"):
            ModuleEncoder(linear()).fit(pd.DataFrame({"a": [None, None]}))

    def test_a_pickle_works(self):
        X, _ = vectors()
        encoder = ModuleEncoder(linear()).fit(X)
        loaded = pickle.loads(pickle.dumps(encoder))
        np.testing.assert_array_equal(loaded.transform(X), encoder.transform(X))


class TestStore:
    """The key of a vector depends on weights, attributes and code."""

    def encoded(self, store, module, X, **options):
        """Return the number of cells that are encoded."""
        before = store.stats()["encoded"]
        ModuleEncoder(module, **options).fit(X).transform(X)
        return store.stats()["encoded"] - before

    def test_once(self, store):
        X, _ = vectors()
        assert self.encoded(store, linear(), X) == 6
        assert self.encoded(store, linear(), X) == 0
        assert self.encoded(store, linear(), pd.concat([X, X]), batch_size=1) == 0

    def test_one_bit_of_a_weight(self, store):
        X, _ = vectors()
        module = linear()
        assert self.encoded(store, module, X) == 6
        with torch.no_grad():
            module.weight[0, 0] = torch.nextafter(module.weight[0, 0], torch.tensor(9.0))
        assert self.encoded(store, module, X) == 6

    def test_a_weight_that_is_set_in_the_fitted_copy(self, store):
        """The key depends on the current weights of the fitted module."""
        X, _ = vectors()
        encoder = ModuleEncoder(linear()).fit(X)
        first = encoder.transform(X)
        with torch.no_grad():
            encoder._engine.backbone.module.bias += 1
        np.testing.assert_allclose(encoder.transform(X), first + 1, atol=1e-5)

    def test_an_attribute_and_a_buffer(self, store):
        class Scaled(nn.Module):
            def __init__(self, scale, shift, table):
                super().__init__()
                self.scale = scale
                self.table = table
                self.register_buffer("shift", torch.tensor(shift))

            def forward(self, x):
                return x * self.scale + self.shift + self.table["more"][0]

        X, cells = vectors()
        for arguments in [(1.0, 0.0, 0.0), (2.0, 0.0, 0.0), (1.0, 3.0, 0.0), (1.0, 0.0, 4.0)]:
            scale, shift, more = arguments
            module = Scaled(scale, shift, {"more": [more]})
            features = ModuleEncoder(module).fit_transform(X)
            np.testing.assert_allclose(features, cells * scale + shift + more, atol=1e-5)
        assert store.stats()["encoded"] == 24

    def test_the_code_of_forward(self, store):
        def make(power):
            class Net(nn.Module):
                def forward(self, x):
                    return x**2 if power == 2 else x**3

            if power == 4:
                Net.forward = lambda self, x: x**4
            return Net()

        X, cells = vectors()
        for power in (2, 3, 4):
            features = ModuleEncoder(make(power)).fit_transform(X)
            np.testing.assert_allclose(features, cells**power, rtol=1e-4)
        assert store.stats()["encoded"] == 18

    def test_the_code_of_collate(self, store):
        X, cells = vectors()
        for factor in (1.0, 2.0):
            encoder = ModuleEncoder(
                nn.Identity(), collate=lambda c, k=factor: torch.as_tensor(np.stack(c)) * k
            )
            np.testing.assert_allclose(encoder.fit_transform(X), cells * factor, rtol=1e-5)

    def test_hooks_are_not_stored(self, store):
        X, cells = vectors()
        module = nn.Sequential(nn.Identity())
        module[0].register_forward_hook(lambda module, inputs, output: output * 2)
        assert self.encoded(store, module, X) == 0
        assert store.stats()["n_embeddings"] == 0
        np.testing.assert_allclose(ModuleEncoder(module).fit_transform(X), cells * 2, rtol=1e-5)

    def test_compiled_code_is_not_stored(self, store):
        X, cells = vectors()
        for module, factor in [(_Times(2.0), 2.0), (_Times(3.0), 3.0)]:
            traced = torch.fx.symbolic_trace(module)
            np.testing.assert_allclose(
                ModuleEncoder(traced).fit_transform(X), cells * factor, rtol=1e-5
            )
        assert store.stats()["n_embeddings"] == 0

    def test_tokens_are_not_vectors(self, store):
        X, _ = vectors()
        encoder = ModuleEncoder(linear()).fit(X)
        tokens, _ = encoder.transform_sequence(X)
        assert tokens.shape == (6, 1, 3)
        assert encoder.transform(X).shape == (6, 3)


class _Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


class TestTrained:
    def problem(self, n=300):
        """The class is the sign of a product, which no linear model can predict."""
        rng = np.random.default_rng(0)
        cells = rng.choice([-1.0, 1.0], size=(n, 4)) * rng.uniform(0.5, 1.5, (n, 4))
        X = pd.DataFrame({"spectrum": pd.Series(list(cells), dtype=object)})
        return X, cells, (cells[:, 0] * cells[:, 1] > 0).astype(int)

    def test_learns_with_y(self):
        X, cells, y = self.problem()
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU())
        before = module_digest(module)
        encoder = ModuleEncoder(
            module, fine_tune="full", max_epochs=40, learning_rate=0.01, batch_size=32,
            random_state=0,
        ).fit(X.iloc[:200], y[:200])  # fmt: skip
        features = encoder.transform(X)
        head = LogisticRegression().fit(features[:200], y[:200])
        assert head.score(features[200:], y[200:]) > 0.9
        assert LogisticRegression().fit(cells[:200], y[:200]).score(cells[200:], y[200:]) < 0.7
        assert module_digest(module) == before  # a copy was trained
        assert len(encoder.history_) == 40

    def test_learns_without_y(self):
        rng = np.random.default_rng(0)
        latent = rng.normal(size=(200, 2))
        cells = latent @ rng.normal(size=(2, 10)) + 0.05 * rng.normal(size=(200, 10))
        X = pd.DataFrame({"spectrum": pd.Series(list(cells), dtype=object)})
        torch.manual_seed(0)
        encoder = ModuleEncoder(
            nn.Linear(10, 2), fine_tune="full", max_epochs=60, learning_rate=0.02, random_state=0
        )
        features = encoder.fit(X.iloc[:150]).transform(X)
        head = Ridge(1e-3).fit(features[:150], latent[:150])
        assert head.score(features[150:], latent[150:]) > 0.9

    def test_is_not_stored(self, store):
        X, _, y = self.problem(20)
        encoder = ModuleEncoder(linear(), fine_tune="full", max_epochs=1, random_state=0).fit(X, y)
        encoder.transform(X)
        assert store.stats()["n_embeddings"] == 0

    def test_precision_is_that_of_a_frozen_module(self):
        X, _, y = self.problem(20)
        options = {"fine_tune": "full", "max_epochs": 1, "random_state": 0}
        plain = ModuleEncoder(linear(), **options).fit(X, y).transform(X)
        full = ModuleEncoder(linear(), dtype="float32", **options).fit(X, y).transform(X)
        np.testing.assert_array_equal(plain, full)
        with pytest.raises(
            ValueError, match="dtype='bfloat16' has no effect with fine_tune='full'"
        ):
            ModuleEncoder(linear(), dtype="bfloat16", **options).fit(X, y)

    def test_absent_cells_never_enter_the_network(self):
        """In a joint fusion, the zeros of absent cells would be logarithms of zero."""

        class Log(nn.Module):
            def __init__(self):
                super().__init__()
                self.gain = nn.Parameter(torch.ones(4))

            def forward(self, x):
                return self.gain * torch.log(x)

        X, cells = vectors(6)
        X["spectrum"] = pd.Series([*np.abs(cells[:4]) + 1, None, None], dtype=object)
        encoder = ModuleEncoder(Log(), fine_tune="full")
        network = encoder.start_training(X)
        encoded = network(encoder.training_tensors(X))
        assert torch.isfinite(encoded.pooled).all() and not encoded.mask[4:].any()
        encoded.pooled.sum().backward()
        assert torch.isfinite(network.backbone.module.gain.grad).all()

    def test_a_frame_without_any_cell(self):
        X, _ = vectors(3)
        encoder = ModuleEncoder(linear(), fine_tune="full")
        network = encoder.start_training(X).eval()
        nothing = pd.DataFrame({"spectrum": [None, None]})
        encoded = network(encoder.training_tensors(nothing))
        assert encoded.pooled.shape == (2, 3) and not encoded.mask.any()
