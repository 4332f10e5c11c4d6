"""PretrainedCaptionGenerator: equal to transformers by hand, for each of its parameters."""

import json
import pickle
import shutil
from copy import copy

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags

from skmm import CaptionGenerator, PretrainedCaptionGenerator, config_context
from skmm.backbones._pretrained._captioner import Captioner
from skmm.backbones._pretrained._captioner_loading import captioner_count
from skmm.encoders import ImageEncoder
from skmm.exceptions import CellTypeError, CheckpointError, MediaDecodeError, ModalityMissingError
from skmm.generation import BeamSearch, NucleusSampling

transformers = pytest.importorskip("transformers", reason="checkpoints need the extra 'hub'")

import tiny_captioners  # noqa: E402

PROMPT = "a photo of"
IMAGES = ["vit_gpt2", "blip", "git", "blip2", "llava"]
KINDS = [*IMAGES, "whisper"]


@pytest.fixture(autouse=True)
def _on_the_cpu():
    with config_context(device="cpu"):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a function to the folder of a tiny checkpoint, built once; never write to it."""
    built = {}

    def get(kind, **options):
        key = (kind, *options.items())
        if key not in built:
            built[key] = tmp_path_factory.mktemp("captioners") / kind
            getattr(tiny_captioners, kind)(built[key], **options)
        return built[key]

    return get


def frame(kind="vit_gpt2"):
    cells = tiny_captioners.tones() if kind == "whisper" else tiny_captioners.plain_images()
    return pd.DataFrame({"seen": cells})


def captions(model, kind="vit_gpt2", **params):
    modality = "audio" if kind == "whisper" else "image"
    options = {"max_length": 8, **params}
    return PretrainedCaptionGenerator(model, [("cells", modality, ["seen"])], **options)


class ByHand:
    """A checkpoint as its documentation uses it."""

    def __init__(self, kind, folder):
        self.kind = kind
        auto = transformers.AutoModelForImageTextToText
        if kind == "whisper":
            auto = transformers.AutoModelForSpeechSeq2Seq
        self.model = auto.from_pretrained(folder).eval()
        if kind == "vit_gpt2":
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            self.processor = transformers.AutoImageProcessor.from_pretrained(folder)
        else:
            self.processor = transformers.AutoProcessor.from_pretrained(folder)
            self.tokenizer = self.processor.tokenizer

    def ids(self, text):
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def inputs(self, cell, prompt):
        """Return the tensors of a cell, the ids before a text, and their name in the model."""
        if self.kind == "whisper":
            from io import BytesIO

            from scipy.io import wavfile

            rate, wave = wavfile.read(BytesIO(cell))
            wave = wave.astype(np.float32) / 2**15
            made = self.processor(wave, sampling_rate=rate, return_tensors="pt")
            settings = self.model.generation_config
            ids = [settings.decoder_start_token_id]
            if hasattr(settings, "lang_to_id"):
                language = self.model.detect_language(**made, num_segment_frames=200)
                ids += [int(language), settings.task_to_id["transcribe"]]
            ids += [settings.no_timestamps_token_id]
            if prompt:
                ids = [*self.processor.get_prompt_ids(prompt), *ids]
            return dict(made), list(map(int, ids)), "decoder_input_ids"
        before = self.ids(prompt) if prompt else []
        if self.kind == "vit_gpt2":
            made = self.processor(images=cell, return_tensors="pt")
            start = self.model.config.decoder_start_token_id
            return dict(made), [start, *before], "decoder_input_ids"
        if self.kind == "llava":
            text = f"USER: <image>\n{prompt or ''} ASSISTANT:"
            made = self.processor(images=cell, text=text, return_tensors="pt")
            return (
                {"pixel_values": made["pixel_values"]},
                made["input_ids"][0].tolist(),
                "input_ids",
            )
        if self.kind == "blip2":
            text = "<image>" * 4 + (prompt if prompt else self.tokenizer.bos_token)
            made = self.processor(images=cell, return_tensors="pt")
            return {"pixel_values": made["pixel_values"]}, self.ids(text), "input_ids"
        made = self.processor(images=cell, return_tensors="pt")
        first = self.tokenizer.cls_token_id
        return {"pixel_values": made["pixel_values"]}, [first, *before], "input_ids"

    def end(self):
        return self.tokenizer.sep_token_id or self.tokenizer.eos_token_id

    def write(self, cell, prompt=None, **options):
        tensors, ids, name = self.inputs(cell, prompt)
        options = {"do_sample": False, "max_new_tokens": 8, **options}
        if self.kind == "whisper":
            if prompt:
                prompt_ids = self.processor.get_prompt_ids(prompt, return_tensors="pt")
                options["prompt_ids"] = prompt_ids
            if hasattr(self.model.generation_config, "lang_to_id"):
                options["task"] = "transcribe"
            written = self.model.generate(**tensors, **options)[0].tolist()
            # With a prompt, Whisper's generate returns the tokens of the prompt too.
            written = written[len(ids) :] if prompt and written[: len(ids)] == ids else written
        else:
            # BLIP drops the last id, which its processor appends.
            given = [*ids, self.end()] if self.kind == "blip" else ids
            written = self.model.generate(**tensors, **{name: torch.tensor([given])}, **options)
            written = written[0, len(ids) :].tolist()
        return self.tokenizer.decode(written, skip_special_tokens=True).strip()

    @torch.no_grad()
    def likelihood(self, cell, text, prompt=None):
        tensors, ids, name = self.inputs(cell, prompt)
        behind = self.kind == "whisper" or (prompt and self.kind != "llava")
        own = [*self.ids(f" {text}" if behind else text), self.end()]
        logits = self.model(**tensors, **{name: torch.tensor([[*ids, *own[:-1]]])}).logits
        steps = torch.log_softmax(logits[0, -len(own) :].double(), dim=1)
        return float(steps[torch.arange(len(own)), torch.tensor(own)].sum())


@pytest.fixture(scope="module")
def by_hand(folder):
    made = {}

    def get(kind, **options):
        key = (kind, *options.items())
        if key not in made:
            made[key] = ByHand(kind, folder(kind, **options))
        return made[key]

    return get


@pytest.mark.parametrize("prompt", [None, PROMPT])
@pytest.mark.parametrize("kind", KINDS)
class TestAsByHand:
    def test_greedy(self, folder, by_hand, kind, prompt):
        X = frame(kind)
        written = captions(folder(kind), kind, prompt=prompt).fit(X).predict(X)
        assert list(written) == [by_hand(kind).write(cell, prompt) for cell in X["seen"]]
        assert len(set(written)) > 1

    def test_beam(self, folder, by_hand, kind, prompt):
        X = frame(kind)
        params = {"decoding": BeamSearch(3, length_penalty=1.0), "prompt": prompt}
        written = captions(folder(kind), kind, **params).fit(X).predict(X)
        options = {"num_beams": 3, "length_penalty": 1.0}
        assert list(written) == [by_hand(kind).write(cell, prompt, **options) for cell in X["seen"]]

    def test_likelihood(self, folder, by_hand, kind, prompt):
        X = frame(kind)
        texts = ["a red cat on the dog", "dog", "", "a"][: len(X)]
        generator = captions(folder(kind), kind, prompt=prompt).fit(X)
        likely = generator.score_samples(X, texts)
        pairs = zip(X["seen"], texts, strict=True)
        direct = [by_hand(kind).likelihood(cell, text, prompt) for cell, text in pairs if text]
        np.testing.assert_allclose(likely[np.array(texts) != ""], direct, atol=1e-4)
        assert np.isfinite(likely).all() and (likely < 0).all()


def test_whisper_of_one_language(folder, by_hand):
    X, one = frame("whisper"), {"languages": False}
    generator = captions(folder("whisper", **one), "whisper").fit(X)
    hand = by_hand("whisper", **one)
    assert list(generator.predict(X)) == [hand.write(cell) for cell in X["seen"]]
    likely = generator.score_samples(X, ["ab"] * 3)
    np.testing.assert_allclose(likely, [hand.likelihood(c, "ab") for c in X["seen"]], atol=1e-4)


@pytest.mark.slow
def test_whisper_of_the_language_that_is_named(folder, by_hand, tmp_path):
    model = shutil.copytree(folder("whisper"), tmp_path / "own")
    settings = json.loads((model / "generation_config.json").read_text())
    X, hand, likely = frame("whisper"), by_hand("whisper"), []
    for language in ("german", "de", "<|de|>", "en"):
        named = json.dumps({**settings, "language": language})
        (model / "generation_config.json").write_text(named)
        generator = captions(model, "whisper").fit(X)
        likely.append(generator.score_samples(X, ["abc"] * 3))
        if language == "german":
            texts = list(generator.predict(X))
            assert texts == [hand.write(cell, language="german") for cell in X["seen"]]
    np.testing.assert_allclose(likely[1:3], [likely[0]] * 2, atol=1e-6)
    assert (likely[3] != likely[0]).all()
    (model / "generation_config.json").write_text(json.dumps({**settings, "language": "klingon"}))
    with pytest.raises(CheckpointError, match="has the unknown language 'klingon'"):
        captions(model, "whisper").fit(X).predict(X)


def test_model_without_a_chat_template_requires_its_own_prompt(folder):
    """The model refuses a prompt without a placeholder for the image."""
    X, bare = frame("llava"), folder("llava", template=False)
    for prompt in (None, "what ?"):
        with pytest.raises(CheckpointError, match=r"'llava' model, cannot generate.*another"):
            captions(bare, prompt=prompt).fit(X).predict(X)
    prompted = captions(bare, prompt="USER: <image>\nwhat ? ASSISTANT:").fit(X)
    assert list(prompted.predict(X)) == list(
        captions(folder("llava"), prompt="what ?").fit(X).predict(X)
    )


def test_name_on_the_hub(folder, monkeypatch):
    import huggingface_hub

    asked = []

    def download(name, **options):
        asked.append((name, options["local_files_only"]))
        return str(folder("git"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    generator = captions("somebody/captions").fit(frame())
    assert set(asked) == {("somebody/captions", True)}
    assert generator.checkpoint_["source"] == "hub"
    texts = captions(folder("git")).fit(frame()).predict(frame())
    assert list(generator.predict(frame())) == list(texts)


def test_generation_config_applies_to_predict_only(folder):
    X = frame("whisper")
    generator = captions(folder("whisper"), "whisper", max_length=20).fit(X)
    assert not any(set("#$") & set(text) for text in generator.predict(X))
    assert np.isfinite(generator.score_samples(X, ["a#$b"] * 3)).all()


@pytest.mark.slow
def test_default_length_is_that_of_the_checkpoint(folder):
    X = frame("whisper")
    generator = captions(folder("whisper"), "whisper", max_length=None).fit(X)
    # 4 of the 30 tokens are for the language and the task.
    assert {len(text) for text in generator.predict(X)} == {26}
    texts = captions(folder("vit_gpt2"), max_length=None).fit(frame()).predict(frame())
    assert max(map(len, texts)) == 20
    # No text is longer than the positions of the model, whatever max_length is.
    texts = captions(folder("vit_gpt2"), max_length=10_000).fit(frame()).predict(frame())
    assert max(map(len, texts)) <= 48


class TestNucleus:
    def test_random_state_decides(self, folder):
        X = frame()
        generator = captions(folder("vit_gpt2"), decoding="nucleus", random_state=0).fit(X)
        before = torch.get_rng_state(), np.random.get_state()[1].copy()
        texts = generator.predict(X)
        assert torch.equal(before[0], torch.get_rng_state())
        assert (before[1] == np.random.get_state()[1]).all()
        assert list(generator.set_params(batch_size=1).predict(X)) == list(texts)
        assert list(generator.set_params(random_state=1).predict(X)) != list(texts)

    def test_of_one_token_is_greedy(self, folder):
        X = frame("git")
        generator = captions(folder("git"), decoding=NucleusSampling(1e-6), random_state=0).fit(X)
        likeliest = generator.predict(X)
        assert list(likeliest) == list(generator.set_params(decoding="greedy").predict(X))

    def test_samples_follow_the_probabilities_of_the_model(self, folder):
        X = frame().iloc[np.zeros(600, int)]
        generator = captions(
            folder("vit_gpt2"),
            decoding=NucleusSampling(1.0, temperature=4.0),
            max_length=1,
            batch_size=300,
            random_state=0,
        ).fit(X)
        texts, counts = np.unique(generator.predict(X).astype(str), return_counts=True)
        assert len(texts) > 5  # rows with the same cell are sampled independently
        hand = ByHand("vit_gpt2", folder("vit_gpt2"))
        tensors, ids, name = hand.inputs(X["seen"].iloc[0], None)
        with torch.no_grad():
            logits = hand.model(**tensors, **{name: torch.tensor([ids])}).logits[0, -1]
        shares = torch.softmax(logits / 4.0, dim=0)
        for token in shares.topk(3).indices:
            text = hand.tokenizer.decode([int(token)], skip_special_tokens=True).strip()
            found = counts[texts == text].sum() / 600
            assert abs(found - float(shares[token])) < 0.1


class TestRows:
    def test_missing_cells(self, folder):
        X = pd.DataFrame({"seen": [None, *tiny_captioners.plain_images(2), float("nan")]})
        generator = captions(folder("vit_gpt2")).fit(X)
        texts = generator.predict(X)
        assert texts[0] is None and texts[3] is None
        assert isinstance(texts[1], str) and texts.dtype == object
        likely = generator.score_samples(X, ["a", "b", None, "c"])
        assert np.isnan(likely).tolist() == [True, False, True, True]
        with pytest.raises(ValueError, match="score_samples requires y to be passed"):
            generator.score_samples(X, None)
        with pytest.raises(ModalityMissingError, match="row 0"):
            generator.set_params(all_missing="raise").predict(X)

    def test_no_cell_at_all(self, folder):
        X = frame()
        generator = captions(folder("vit_gpt2"), missing_columns="absent").fit(X)
        absent = pd.DataFrame({"seen": [None, None]})
        assert list(generator.predict(absent)) == [None, None]
        assert np.isnan(generator.score_samples(absent, ["a", "b"])).all()

    def test_equal_cells_are_written_once(self, folder, monkeypatch):
        seen = []
        write = Captioner.generate

        def counted(self, cells, prompts, **options):
            seen.append(len(cells))
            return write(self, cells, prompts, **options)

        monkeypatch.setattr(Captioner, "generate", counted)
        some = tiny_captioners.plain_images(3)
        X = pd.DataFrame({"seen": [some[i].copy() for i in (0, 1, 0, 2, 1, 0)]})
        generator = captions(folder("git"), batch_size=2).fit(X)
        generator.predict(X[:1])
        seen.clear()
        texts = generator.predict(X)
        assert seen == [2, 1]
        assert texts[0] == texts[2] == texts[5] and texts[1] == texts[4]
        assert list(texts[[0, 1, 3]]) == list(generator.predict(X.iloc[[0, 1, 3]]))

    @pytest.mark.parametrize("kind", KINDS)
    def test_batches_do_not_matter(self, folder, kind):
        X = frame(kind)
        generator = captions(folder(kind), kind, batch_size=1, prompt=PROMPT).fit(X)
        one = (
            generator.predict(X),
            generator.score_samples(X, ["a cat", "a", "dog", "on"][: len(X)]),
        )
        generator.set_params(batch_size=64)
        assert list(generator.predict(X)) == list(one[0])
        likely = generator.score_samples(X, ["a cat", "a", "dog", "on"][: len(X)])
        np.testing.assert_allclose(likely, one[1], atol=1e-4)

    @pytest.mark.parametrize("kind", ["vit_gpt2", "blip", "llava"])
    def test_a_prompt_for_each_row(self, folder, kind):
        """A column of questions of different lengths."""
        X = frame(kind).assign(question=["what ?", "a cat on the dog", None, "what ?"])
        generator = captions(folder(kind), prompt_column="question").fit(X)
        texts = generator.predict(X)
        for row, question in enumerate(X["question"]):
            alone = captions(
                folder(kind), prompt=question if isinstance(question, str) else None
            ).fit(X[["seen"]])
            assert texts[row] == alone.predict(X[["seen"]])[row]
        asked = generator.set_params(prompt="the {} on").predict(X)
        alone = captions(folder(kind), prompt="the what ? on").fit(X[["seen"]])
        assert asked[0] == alone.predict(X[["seen"]])[0]
        begun = generator.set_params(prompt="the").predict(X)
        alone.set_params(prompt="the what ?")
        assert begun[3] == alone.predict(X[["seen"]])[3]


class TestEstimator:
    def test_fit_loads_no_weights(self, folder, tmp_path):
        model = shutil.copytree(folder("blip"), tmp_path / "own")
        (model / "more.json").write_text("{}")  # another digest than that of other tests
        before = captioner_count()
        generator = captions(model).fit(frame())
        assert captioner_count() == before
        assert generator.checkpoint_["source"] == "folder"
        assert generator.checkpoint_["modality"] == "image"
        assert generator.modalities_ == [("cells", "image", ["seen"])]
        for _ in range(2):
            clone(generator).fit(frame()).predict(frame()[:1])
        generator.predict(frame()[:1])
        assert captioner_count() == before + 1

    def test_pickle_holds_no_weights(self, folder):
        generator = captions(folder("git")).fit(frame())
        texts = generator.predict(frame())
        stored = pickle.dumps(generator)
        assert len(stored) < 4000
        assert list(pickle.loads(stored).predict(frame())) == list(texts)
        assert not any(
            isinstance(v, torch.Tensor | torch.nn.Module) for v in vars(generator).values()
        )

    def test_other_weights_are_refused(self, folder, tmp_path):
        model = shutil.copytree(folder("git"), tmp_path / "own")
        stored = pickle.dumps(captions(model).fit(frame()))
        shutil.rmtree(model)
        shutil.copytree(folder("blip"), model)
        with pytest.raises(CheckpointError, match=r"fitted with other weights than .*Fit it again"):
            pickle.loads(stored).predict(frame())
        # The same weights in another folder are accepted.
        moved = pickle.loads(stored).set_params(model=folder("git"))
        assert len(moved.predict(frame())) == 4

    def test_auto(self, folder):
        X = pd.DataFrame({"photo": tiny_captioners.plain_images(), "price": [1.0, 2.0, 3.0, 4.0]})
        texts = PretrainedCaptionGenerator(str(folder("git")), max_length=8).fit(X).predict(X)
        assert list(texts) == list(captions(folder("git")).fit(frame()).predict(frame()))

    def test_score_and_search(self, folder):
        X = frame("git")
        generator = captions(folder("git"), scoring="chrf").fit(X, ["a"] * 4)
        y = generator.predict(X)
        assert generator.score(X, y) == pytest.approx(1.0)
        ways = [FrozenEstimator(copy(generator).set_params(prompt=p)) for p in (PROMPT, None)]
        search = GridSearchCV(Pipeline([("captions", ways[0])]), {"captions": ways}, cv=2)
        assert search.fit(X, y).best_index_ == 1
        # Nothing is trained, so a plain search costs no more.
        search = GridSearchCV(generator, {"prompt": [PROMPT, None]}, cv=2).fit(X, y)
        assert search.best_params_ == {"prompt": None}

    def test_needs_no_target(self, folder):
        assert not get_tags(captions(folder("git"))).target_tags.required
        assert get_tags(CaptionGenerator()).target_tags.required
        with pytest.raises(TypeError, match="a cell of y must be a text"):
            captions(folder("git")).fit(frame(), [1, 2, 3, 4])

    def test_diagram(self, folder):
        generator = captions(folder("git"))
        for shown in (generator, clone(generator).fit(frame())):
            assert "image" in shown._repr_html_()

    def test_half_precision(self, folder):
        X = frame()
        generator = captions(folder("vit_gpt2"), dtype="bfloat16").fit(X)
        assert all(isinstance(text, str) for text in generator.predict(X))
        half = generator.score_samples(X, ["a b"] * 4)
        whole = generator.set_params(dtype="float32").score_samples(X, ["a b"] * 4)
        assert (half != whole).all()
        np.testing.assert_allclose(half, whole, rtol=0.1)

    def test_verbose_reports_the_rows(self, folder, capsys):
        X = frame("git").iloc[[0, 1, 0]]  # two of them are written once
        generator = captions(folder("git"), batch_size=1).fit(X)
        generator.predict(X)
        assert "cells" not in capsys.readouterr().err
        generator.set_params(verbose=1).predict(X)
        assert "PretrainedCaptionGenerator: 3/3 cells" in capsys.readouterr().err
        generator.score_samples(X, ["a", None, "a"])
        assert "PretrainedCaptionGenerator: 2/2 cells" in capsys.readouterr().err

    def test_not_fitted(self, folder):
        generator = captions(folder("git"))
        with pytest.raises(NotFittedError):
            generator.predict(frame())
        with pytest.raises(NotFittedError):
            generator.score_samples(frame(), ["a"] * 4)
        with pytest.raises(ValueError, match="The 'model' parameter"):
            generator.fit(frame()).set_params(model=None).predict(frame())


class TestRefused:
    @pytest.mark.parametrize("kind", ["vit", "bert", "gpt2", "clip"])
    def test_model_that_does_not_write(self, tiny_checkpoint, kind):
        with pytest.raises(CheckpointError, match=f"is a '{kind}' model, which writes no texts"):
            captions(tiny_checkpoint(kind)).fit(frame())

    def test_model_of_another_modality(self, folder):
        with pytest.raises(
            CheckpointError, match=r"'whisper' model, which writes from audio cells"
        ):
            captions(folder("whisper")).fit(frame())
        with pytest.raises(CheckpointError, match=r"'blip' model.*Give a model from speech"):
            captions(folder("blip"), "whisper").fit(frame("whisper"))

    @pytest.mark.parametrize("transformer", [ImageEncoder(), "text", "passthrough", "tabular"])
    def test_other_transformers(self, folder, transformer):
        generator = PretrainedCaptionGenerator(folder("git"), [("cells", transformer, ["seen"])])
        with pytest.raises(ValueError, match="must be 'image' or 'audio', got"):
            generator.fit(frame())

    def test_several_columns(self, folder):
        X = frame().assign(other=frame()["seen"])
        triples = [("a", "image", ["seen"]), ("b", "image", ["other"])]
        for modalities in (triples, [("a", "image", ["seen", "other"])], "auto"):
            with pytest.raises(
                ValueError, match=r"one column of image cells, got 2 \('seen', 'oth"
            ):
                PretrainedCaptionGenerator(folder("git"), modalities).fit(X)
        dropped = [triples[0], ("b", "drop", ["other"])]
        assert len(PretrainedCaptionGenerator(folder("git"), dropped).fit(X).predict(X)) == 4

    def test_no_such_column(self, folder):
        X = pd.DataFrame({"price": [1.0, 2.0]})
        with pytest.raises(ValueError, match=r"from one column of image cells, got 0 \('price'\)"):
            PretrainedCaptionGenerator(folder("git")).fit(X)

    def test_no_folder(self):
        with pytest.raises(CheckpointError, match="no folder that exists"):
            captions("./nowhere").fit(frame())

    def test_pickled_weights(self, folder, tmp_path):
        model = shutil.copytree(folder("git"), tmp_path / "own")
        (model / "model.safetensors").rename(model / "pytorch_model.bin")
        with pytest.raises(CheckpointError, match="pickled weights"):
            captions(model).fit(frame())

    def test_incomplete_weights(self, folder, tmp_path):
        from safetensors.torch import load_file, save_file

        model = shutil.copytree(folder("blip"), tmp_path / "own")
        weights = load_file(model / "model.safetensors")
        kept = {key: value for key, value in weights.items() if "crossattention" not in key}
        save_file(kept, model / "model.safetensors", metadata={"format": "pt"})
        generator = captions(model).fit(frame())
        before = torch.get_rng_state()
        with pytest.raises(CheckpointError, match="incomplete, without .*crossattention"):
            generator.predict(frame())
        assert torch.equal(before, torch.get_rng_state())

    def test_no_processor(self, folder, tmp_path):
        model = shutil.copytree(folder("git"), tmp_path / "own")
        (model / "processor_config.json").unlink()
        with pytest.raises(CheckpointError, match="processor of"):
            captions(model).fit(frame()).predict(frame())

    def test_code_of_a_checkpoint_is_never_run(self, folder, tmp_path):
        model = shutil.copytree(folder("git"), tmp_path / "own")
        config = json.loads((model / "config.json").read_text())
        config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}}
        (model / "config.json").write_text(json.dumps(config))
        (model / "mine.py").write_text("raise SystemExit('ran')")
        with pytest.raises(CheckpointError):
            captions(model).fit(frame())

    @pytest.mark.parametrize("kind", KINDS)
    def test_text_that_is_too_long(self, folder, kind):
        X = frame(kind)
        generator = captions(folder(kind), kind).fit(X)
        with pytest.raises(ValueError, match=r"text of row 1 .* more than the \d+ tokens"):
            generator.score_samples(X, ["a", "b a" * 50, *["c"] * (len(X) - 2)])

    def test_audio_clip_that_is_too_long(self, folder):
        X = pd.DataFrame({"seen": [np.zeros(40_000, np.float32)]})
        import io

        from scipy.io import wavfile

        file = io.BytesIO()
        wavfile.write(file, 16_000, X["seen"][0])
        X = pd.DataFrame({"seen": [*tiny_captioners.tones(), file.getvalue()]}, index=list("abcd"))
        generator = captions(folder("whisper"), "whisper").fit(X)
        with pytest.raises(ValueError, match=r"row 'd': the audio lasts longer than the 2 seconds"):
            generator.predict(X)

    def test_bad_cells(self, folder):
        X = pd.DataFrame(
            {"seen": [*tiny_captioners.plain_images(1), b"no image"]}, index=["a", "b"]
        )
        generator = captions(folder("git")).fit(X)
        with pytest.raises(MediaDecodeError, match="PretrainedCaptionGenerator: .*'seen'.*'b'"):
            generator.predict(X)
        X = pd.DataFrame({"seen": [object()]}, index=["b"])
        with pytest.raises(CellTypeError, match="PretrainedCaptionGenerator: .*'seen'.*'b'"):
            generator.predict(X)

    @pytest.mark.parametrize(("name", "value"), [("model", 3), ("prompt", 3)])
    def test_parameters(self, folder, name, value):
        with pytest.raises(ValueError, match=f"The '{name}' parameter"):
            captions(folder("git")).set_params(**{name: value}).fit(frame())
