"""PretrainedImageGenerator: equal to diffusers by hand, for each of its parameters."""

import json
import pickle
import shutil
from copy import copy

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import get_tags

from skmm import PretrainedImageGenerator, config_context
from skmm.backbones._pretrained._diffusion import pipeline_count, resolve_pipeline
from skmm.exceptions import CellTypeError, CheckpointError, ModalityMissingError

diffusers = pytest.importorskip("diffusers", reason="pipelines need the extra 'diffusion'")

import tiny_diffusion  # noqa: E402

TEXTS = ["a red cat", "a dog", "the moon", "a red cat"]
X = pd.DataFrame({"said": TEXTS})


@pytest.fixture(autouse=True)
def _on_the_cpu():
    with config_context(device="cpu"):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Build a tiny Stable Diffusion; never write to it."""
    path = tmp_path_factory.mktemp("pipelines") / "tiny"
    tiny_diffusion.stable_diffusion(path)
    return path


@pytest.fixture
def own(folder, tmp_path):
    """Make a copy that a test may change."""
    return shutil.copytree(folder, tmp_path / "own")


def images(model, **params):
    options = {"n_steps": 3, "guidance_scale": 4.0, "image_size": 16, "random_state": 0, **params}
    return PretrainedImageGenerator(model, [("text", "text", ["said"])], **options)


@pytest.mark.slow
def test_equals_the_pipeline_by_hand(folder):
    generated = images(folder).fit(X).predict(X)
    assert generated.shape == (4, 16, 16, 3) and generated.dtype == np.uint8
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    seeds = np.random.RandomState(0).randint(2**31 - 1, size=4)
    noise = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
    by_hand = pipeline(
        TEXTS, num_inference_steps=3, guidance_scale=4.0, generator=noise, output_type="np"
    ).images
    assert np.abs(generated - by_hand * 255).max() <= 1


@pytest.mark.slow
def test_random_state_decides_and_nothing_else(folder):
    model = images(folder).fit(X)
    first = model.predict(X)
    torch.manual_seed(7)
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    assert np.array_equal(model.predict(X), first)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.array_equal(np.random.get_state()[1], state[1])
    # The noise depends on the position alone, so two rows with one text differ.
    assert np.abs(first - model.set_params(batch_size=3).predict(X).astype(int)).max() <= 1
    assert not np.array_equal(first[0], first[3])
    assert np.abs(first[:2] - model.predict(X[:2]).astype(int)).max() <= 1
    other = model.set_params(random_state=1).predict(X)
    assert not np.array_equal(first, other)


@pytest.mark.slow
def test_text_prompt_steps_and_guidance_change_the_image(folder):
    model = images(folder).fit(X)
    first = model.predict(X)
    changed = pd.DataFrame({"said": ["the sea", *TEXTS[1:]]})
    generated = model.predict(changed)
    assert np.abs(generated[0] - first[0].astype(int)).mean() > 1
    assert np.abs(generated[1:] - first[1:].astype(int)).max() <= 1
    # The prompt is read by predict, without another fit.
    asked = copy(model).set_params(prompt="{}, a photo of {}")
    whole = pd.DataFrame({"said": [f"{text}, a photo of {text}" for text in TEXTS]})
    assert np.array_equal(asked.predict(X), model.predict(whole))
    for way in ({"n_steps": 5}, {"guidance_scale": 1.0}):
        assert not np.array_equal(copy(model).set_params(**way).predict(X), first)


def test_a_row_without_a_text(folder):
    some = pd.DataFrame({"said": ["a red cat", None, np.nan]})
    model = images(folder, prompt="a photo of {}").fit(some)
    generated = model.predict(some)
    empty = images(folder).fit(X).predict(pd.DataFrame({"said": ["a photo of a red cat", "", ""]}))
    # The prompt of a missing text is empty, also with a template.
    assert np.array_equal(generated, empty)
    with pytest.raises(ModalityMissingError, match="PretrainedImageGenerator"):
        model.set_params(all_missing="raise").predict(some)


def test_size_and_colors(folder):
    y = [np.full((9, 9), 40 * i, dtype=np.uint8) for i in range(3)] + [None]
    gray = images(folder, image_size=10).fit(X, y)
    assert gray.mode_ == "L" and gray.predict(X).shape == (4, 10, 10)
    color = images(folder, image_size=10).fit(X, y)
    assert images(folder, mode="RGB").fit(X, y).mode_ == images(folder).fit(X).mode_ == "RGB"
    clear = [Image.new("RGBA", (8, 8), (255, 0, 0, 100)), None, None, None]
    assert images(folder).fit(X, clear).mode_ == "RGB"
    assert np.array_equal(color.predict(X), gray.predict(X))
    with pytest.raises(ValueError, match="The 'mode' parameter.*Got 'RGBA'"):
        images(folder, mode="RGBA").fit(X)
    with pytest.raises(ValueError, match="X has 4 rows and y has 3"):
        images(folder).fit(X, y[:3])


def test_fit_trains_nothing(folder):
    before = pipeline_count()
    model = images(str(folder)).fit(X)
    assert pipeline_count() == before
    assert not hasattr(model, "module_") and not hasattr(model, "history_")
    assert model.modalities_ == [("text", "text", ["said"])]
    assert model.checkpoint_["source"] == "folder" and len(model.checkpoint_["digest"]) == 64
    assert not get_tags(model).target_tags.required
    with pytest.raises(NotFittedError):
        images(folder).predict(X)
    # "auto" finds the one column of texts.
    rows = pd.DataFrame({"said": ["a red cat on the mat", "a dog ran away", "the moon is out"]})
    auto = PretrainedImageGenerator(folder, n_steps=2, image_size=8, random_state=0).fit(rows)
    assert auto.predict(rows).shape == (3, 8, 8, 3)


def test_clones_share_the_weights_and_pickles_have_none(folder):
    model = images(folder).fit(X)
    first = model.predict(X)
    before = pipeline_count()
    again = clone(model).fit(X)
    assert np.array_equal(again.predict(X), first)
    stored = pickle.dumps(model)
    assert len(stored) < 5000
    assert np.array_equal(pickle.loads(stored).predict(X), first)
    assert pipeline_count() == before


@pytest.mark.slow
def test_other_weights_than_those_of_fit_are_refused(own):
    model = images(own).fit(X)
    model.predict(X)
    tiny_diffusion.stable_diffusion(own, seed=1)  # the weights of a part, in its folder
    with pytest.raises(CheckpointError, match="was fitted with other weights than .* Fit it again"):
        model.predict(X)
    changed = model.fit(X).predict(X)
    (own / "scheduler" / "scheduler_config.json").write_text(
        (own / "scheduler" / "scheduler_config.json").read_text().replace("0.02", "0.03")
    )
    with pytest.raises(CheckpointError, match="was fitted with other weights"):
        model.predict(X)
    assert not np.array_equal(model.fit(X).predict(X), changed)


def test_score(folder):
    y = list(np.random.default_rng(0).integers(0, 255, (4, 8, 8), dtype=np.uint8))
    model = images(folder, image_size=8, n_steps=2)
    with pytest.raises(NotFittedError):
        model.score(X, y)
    assert model.fit(X, y).predict(X).shape == (4, 8, 8)
    frechet = model.set_params(feature_encoder=_Mean()).score(X, y)
    assert np.isfinite(frechet) and frechet < 0
    with pytest.raises(ValueError, match="alignment=.* has no effect with scoring='frechet'"):
        model.set_params(alignment=_Space()).score(X, y)


def test_verbose_reports_the_rows(folder, capsys):
    model = images(folder, batch_size=3).fit(X)
    model.predict(X)
    assert "cells" not in capsys.readouterr().err
    model.set_params(verbose=True).predict(X)
    assert "PretrainedImageGenerator: 4/4 cells" in capsys.readouterr().err


class _Space:
    def transform_modality(self, X, modality):
        """Return a vector for each row."""


class _Mean(BaseEstimator):
    """Encoder of images by their mean brightness and that of their upper half."""

    def fit(self, X, y=None):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def transform(self, X):
        return [[np.mean(cell), np.mean(np.asarray(cell)[:4])] for cell in X]


@pytest.mark.parametrize("case", ["one transformer", "two columns", "no text", "odd cell"])
def test_bad_input_is_refused(folder, case):
    two = X.assign(more="words of another kind")
    if case == "one transformer":
        with pytest.raises(ValueError, match="the transformer of the modality must be 'text', got"):
            images(folder).set_params(modalities=[("said", "passthrough", ["said"])]).fit(X)
    elif case == "two columns":
        with pytest.raises(ValueError, match=r"from one column of texts, got 2 \('said', 'more'\)"):
            images(folder).set_params(modalities=[("t", "text", ["said", "more"])]).fit(two)
    elif case == "no text":
        with pytest.raises(ValueError, match="generates from one column of texts, got"):
            PretrainedImageGenerator(folder).fit(pd.DataFrame({"n": np.arange(5.0)}))
    else:
        odd = pd.DataFrame({"said": ["a", b"b"]})
        with pytest.raises(CellTypeError, match="Column 'said', row 1"):
            images(folder).fit(X).predict(odd)


# --- folders that are no pipeline ----------------------------------------------------------


def test_a_folder_that_is_no_pipeline(tmp_path):
    with pytest.raises(CheckpointError, match="model='.*nowhere/at/all' is no folder that exists"):
        images(tmp_path / "nowhere/at/all").fit(X)
    with pytest.raises(CheckpointError, match="without a readable model_index.json"):
        images(tmp_path).fit(X)
    (tmp_path / "model_index.json").write_text("[1")
    with pytest.raises(CheckpointError, match="without a readable model_index.json"):
        images(tmp_path).fit(X)
    tiny_diffusion.unconditional(tmp_path)
    with pytest.raises(CheckpointError, match="'DDIMPipeline', which is no text-to-image pipeline"):
        images(tmp_path).fit(X)


def test_pickled_weights_are_refused(own):
    weights = own / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(CheckpointError, match="pickled weights.* in its folder 'unet'"):
        images(own).fit(X)
    shutil.rmtree(own / "unet")
    with pytest.raises(CheckpointError, match="nothing in its folder 'unet'"):
        images(own).fit(X)


def test_code_of_a_checkpoint_is_never_run(own):
    ran = own / "ran"
    code = f"open({str(ran)!r}, 'w')\nclass Own:\n    from_pretrained = dict\n"
    (own / "unet" / "my_unet.py").write_text(code)
    (own / "pipeline.py").write_text(code)
    index = json.loads((own / "model_index.json").read_text())
    for entry in (["my_unet", "Own"], ["unet.my_unet", "Own"], ["os", "system"], ["diffusers"]):
        (own / "model_index.json").write_text(json.dumps({**index, "unet": entry}))
        with pytest.raises(CheckpointError, match="its part 'unet' .* is never run"):
            images(own).fit(X)
    for entry in ("MyPipeline", ["pipeline", "Own"]):
        (own / "model_index.json").write_text(json.dumps({**index, "_class_name": entry}))
        with pytest.raises(CheckpointError, match="is no text-to-image pipeline of the installed"):
            images(own).fit(X)
    assert not ran.exists()


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_incomplete_weights_are_refused(own, part):
    from safetensors.torch import load_file, save_file

    file = next((own / part).glob("*.safetensors"))
    weights = load_file(file)
    lost = max(weights)
    del weights[lost]
    save_file(weights, file, metadata={"format": "pt"})
    model = images(own).fit(X)
    with pytest.raises(CheckpointError, match=f"{part}' are incomplete, without {lost}"):
        model.predict(X)
    file.write_bytes(file.read_bytes()[:-100])
    model.fit(X)
    with pytest.raises(CheckpointError, match=r"weights of .* cannot be read"):
        model.predict(X)


def test_the_same_files_elsewhere_are_the_same_pipeline(folder, own):
    one, other = (resolve_pipeline(path, needed_by="A test") for path in (folder, own))
    assert one.digest == other.digest
    (own / "unet" / "README.md").write_text("words")
    assert resolve_pipeline(own, needed_by="A test").digest == one.digest
    model = images(folder).fit(X)
    assert np.array_equal(model.set_params(model=own).predict(X), images(own).fit(X).predict(X))


# --- from the hub --------------------------------------------------------------------------


@pytest.mark.slow
def test_only_what_is_needed_is_fetched(folder, monkeypatch, tmp_path):
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.*"))
    more = [
        *("whole-model.safetensors", "README.md", "unet/diffusion_pytorch_model.bin"),
        *("unet/diffusion_pytorch_model.fp16.safetensors", "unet/code.py", "onnx/model.onnx"),
        *("vae/diffusion_pytorch_model.non_ema.safetensors", "other/model.safetensors"),
    ]
    cache = tmp_path / "commit"

    def download(name, *, local_files_only, revision=None, **patterns):
        if local_files_only:
            raise FileNotFoundError("not in the cache")
        assert name == "somebody/pipeline" and revision in (None, "commit")
        for file in filter_repo_objects([*files, *more], **patterns):
            assert file in files
            (cache / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / file, cache / file)
        return str(cache)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    model = images("somebody/pipeline").fit(X)
    assert model.checkpoint_["source"] == "hub"
    assert model.checkpoint_["digest"] == resolve_pipeline(folder, needed_by="A test").digest
    assert np.array_equal(model.predict(X), images(folder).fit(X).predict(X))


def test_an_unreachable_hub(monkeypatch):
    import huggingface_hub

    def download(*args, **options):
        raise ConnectionError("no way there. More words")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(CheckpointError, match=r"'somebody/pipeline' could not be fetched .*no way"):
        images("somebody/pipeline").fit(X)
