"""Text-to-image pipelines of diffusers: found by name or folder, loaded once per process."""

import inspect
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import nn

from skmm._environment._optional import import_optional
from skmm.backbones._pretrained._checkpoint import (
    Checkpoint,
    Source,
    fetched,
    is_path,
    name_of,
    no_folder,
)
from skmm.backbones._pretrained._files import (
    FETCHED,
    INDEX,
    NOT_FETCHED,
    PICKLES,
    component_folders,
    digest_of,
    read_index,
)
from skmm.backbones._pretrained._loading import LRUCache
from skmm.backbones._pretrained._transformers import LOCAL, check_complete, detach, reading
from skmm.exceptions import CheckpointError

__all__ = ["DiffusionPipeline", "load_pipeline", "pipeline_count", "resolve_pipeline"]

# Pipelines are large.
_PIPELINES: "LRUCache[DiffusionPipeline]" = LRUCache(1)
_LOCAL_FILES = {"local_files_only": True}  # of diffusers, which runs no code of a folder


def pipeline_count() -> int:
    """Return how often this process has loaded a pipeline."""
    return _PIPELINES.n_made


class _Pipeline(Protocol):
    """A text-to-image pipeline of diffusers."""

    def __call__(
        self,
        *,
        prompt: list[str],
        generator: list[torch.Generator],
        output_type: str,
        **options: float,
    ) -> Any: ...


class DiffusionPipeline:
    """A text-to-image pipeline of diffusers.

    Parameters
    ----------
    pipeline : diffusers.DiffusionPipeline
        The loaded pipeline.
    """

    def __init__(self, pipeline: _Pipeline):
        self.pipeline = pipeline
        self._known = set(inspect.signature(pipeline.__call__).parameters)

    def generate(
        self, texts: Sequence[str], seeds: Sequence[int], *, n_steps: int, guidance_scale: float
    ) -> np.ndarray:
        """Generate an image for each text.

        Parameters
        ----------
        texts : sequence of str
            Prompts; "" for an unconditional image.
        seeds : sequence of int
            Seeds of the noise of each image, which does not depend on the others.
        n_steps : int
            Number of denoising steps.
        guidance_scale : float
            Scale of classifier-free guidance.

        Returns
        -------
        images : ndarray of shape (n_texts, height, width, 3), uint8
            Images of the size of the pipeline.
        """
        options = {"num_inference_steps": n_steps, "guidance_scale": guidance_scale}
        options = {name: value for name, value in options.items() if name in self._known}
        noise = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        with torch.inference_mode():
            images = self.pipeline(
                prompt=list(texts), generator=noise, output_type="np", **options
            ).images
        pixels = np.asarray(images, dtype=np.float32)
        pixels = np.rint(np.clip(np.nan_to_num(pixels), 0.0, 1.0) * 255).astype(np.uint8)
        return np.repeat(pixels, 3, axis=3) if pixels.shape[3] == 1 else pixels


def resolve_pipeline(model: str | os.PathLike[str], *, needed_by: str) -> Checkpoint:
    """Find a text-to-image pipeline: a folder, else the hub. No weights are loaded.

    Parameters
    ----------
    model : str or path-like
        A folder, or the name of a repository of the Hugging Face hub.
    needed_by : str
        Name of the calling class, for errors.

    Returns
    -------
    checkpoint : Checkpoint
        The files and their digest.

    Raises
    ------
    CheckpointError
        If there is no such pipeline, it is incomplete, pickled, has its own code, or is not
        conditioned on a text.
    """
    name = name_of(model, needed_by)
    asked = f"{needed_by}: model={name!r}"
    source: Source = "folder"
    path = Path(name).expanduser()
    import_optional("diffusers", needed_by=needed_by)
    if not (name and path.is_dir()):
        if is_path(model, path):
            raise CheckpointError(no_folder(path, asked))
        source, path = "hub", fetched(name, asked, whole=_check_pipeline, snapshot=_snapshot)
    _check_pipeline(path, asked)
    digest = digest_of(path, hub=source == "hub")
    return Checkpoint(name, source, "diffusers", path, digest, needed_by)


def _snapshot(repository: str, *, local: bool) -> Path:
    hub = import_optional("huggingface_hub", needed_by="A model of the hub")
    options = {"local_files_only": local}
    # Only the listed parts: repositories often have the whole pipeline in a single file too.
    folder = Path(hub.snapshot_download(repository, allow_patterns=[INDEX], **options))
    parts = component_folders(folder)
    hub.snapshot_download(
        repository,
        revision=folder.name,  # the same commit
        allow_patterns=[f"{part}/*{suffix}" for part in parts for suffix in FETCHED],
        ignore_patterns=list(NOT_FETCHED),
        **options,
    )
    return folder


def _check_pipeline(folder: Path, asked: str) -> None:
    """Refuse a folder that is no complete text-to-image pipeline with safetensors."""
    index = read_index(folder)
    kind = index.get("_class_name")
    if not index or kind is None:
        raise CheckpointError(
            f"{asked} is a folder without a readable {INDEX}, so it is no pipeline of diffusers."
            " Pass a folder that was written by a pipeline's save_pretrained."
        )
    with _reading(asked, "pipeline") as (diffusers, _):
        pipeline = getattr(diffusers, kind, None) if isinstance(kind, str) else None
        for part in component_folders(folder):
            _class_of(diffusers, part, index[part], asked)
    known = () if pipeline is None else inspect.signature(pipeline.__call__).parameters
    if "prompt" not in known or "output_type" not in known:
        raise CheckpointError(
            f"{asked} is a {kind!r}, which is no text-to-image pipeline of the installed"
            " diffusers. Pass one such as StableDiffusionPipeline."
        )
    for part in component_folders(folder):
        inside = [file for file in (folder / part).glob("*") if file.is_file()]
        suffixes = {file.suffix for file in inside}
        is_model = any(file.name == "config.json" for file in inside)
        if inside and not (is_model and ".safetensors" not in suffixes):
            continue
        pickled = bool(suffixes & set(PICKLES))
        found = "pickled weights, which can run code when loaded" if pickled else "no weights"
        raise CheckpointError(
            f"{asked} has {found if inside else 'nothing'} in its folder {part!r}, and only"
            " safetensors are read. Load the pipeline where you trust it and save it with"
            " save_pretrained, which writes safetensors."
        )


@contextmanager
def _reading(name: str, what: str) -> Iterator[tuple[ModuleType, ModuleType]]:
    """Silence diffusers and transformers, and raise their errors as `CheckpointError`."""
    with reading(name, what) as transformers:
        diffusers = import_optional("diffusers", needed_by="A pretrained pipeline")
        logging = diffusers.utils.logging
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()
        try:
            yield diffusers, transformers
        finally:
            logging.set_verbosity(verbosity)


def _class_of(
    diffusers: ModuleType, part: str, entry: Sequence[str | None], asked: str
) -> type[Any]:
    """Return the class of a part of a pipeline, never one defined in the folder."""
    library, name = entry if len(entry) == 2 else (None, None)
    homes: dict[str | None, ModuleType] = {
        "diffusers": diffusers,
        "transformers": import_optional("transformers", needed_by="A pretrained pipeline"),
    }
    home = homes.get(library) or getattr(diffusers.pipelines, str(library), None)
    found = getattr(home, str(name), None)
    if not hasattr(found, "from_pretrained"):
        raise CheckpointError(
            f"{asked}: its part {part!r} is a {name!r} of {library!r}, which neither the installed"
            " diffusers nor transformers has. Code of a checkpoint is never run."
        )
    return cast("type[Any]", found)


def load_pipeline(
    checkpoint: Checkpoint, *, device: torch.device, dtype: torch.dtype
) -> DiffusionPipeline:
    """Return a frozen pipeline; its weights are loaded at most once per process.

    Parameters
    ----------
    checkpoint : Checkpoint
        Result of ``resolve_pipeline``.
    device : torch.device
        Device of the weights.
    dtype : torch.dtype
        Type of the weights.

    Returns
    -------
    pipeline : DiffusionPipeline
        The cached pipeline, which must not be changed.

    Raises
    ------
    CheckpointError
        If the weights are incomplete, unreadable, or have changed since they were resolved.
    """

    def load() -> DiffusionPipeline:
        checkpoint.verify()
        pipeline = DiffusionPipeline(_pipeline(checkpoint, device, dtype))
        checkpoint.verify()  # the files did not change while they were read
        return pipeline

    return _PIPELINES.get((checkpoint.name, checkpoint.digest, str(device), dtype), load)


def _pipeline(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> _Pipeline:
    folder, name = checkpoint.path, checkpoint.name
    index = read_index(folder)
    # The other entries of the index are options of the pipeline.
    given: dict[str, Any] = {
        key: value
        for key, value in index.items()
        if not key.startswith("_") and not isinstance(value, list)
    }
    absent = [key for key, value in index.items() if isinstance(value, list) and not any(value)]
    given |= dict.fromkeys(absent)
    # The libraries sample missing weights from the global generator. They are refused, and the
    # state of the generator is restored.
    with _reading(name, "weights") as (diffusers, _), torch.random.fork_rng(devices=[]):
        for part in component_folders(folder):
            loader = _class_of(diffusers, part, index[part], f"model={name!r}")
            given[part] = _part(loader, folder / part, f"{name}/{part}", dtype)
            if isinstance(given[part], nn.Module):
                given[part].requires_grad_(False).eval()
                detach(given[part])
                given[part].to(device)
        pipeline = getattr(diffusers, index["_class_name"])(**given)
    pipeline.set_progress_bar_config(disable=True)
    return cast(_Pipeline, pipeline)


def _part(loader: type[Any], folder: Path, name: str, dtype: torch.dtype) -> Any:
    """Load a part of a pipeline, such as a network, a tokenizer or a scheduler."""
    is_network = issubclass(loader, nn.Module)
    if not is_network:
        ours = LOCAL if loader.__module__.startswith("transformers.") else _LOCAL_FILES
        return loader.from_pretrained(folder, **ours)
    options: dict[str, Any] = {"use_safetensors": True, "output_loading_info": True}
    if hasattr(loader, "load_config"):  # of diffusers
        options |= {"torch_dtype": dtype, "low_cpu_mem_usage": False, **_LOCAL_FILES}
    else:
        options |= {"dtype": dtype, **LOCAL}
    module, info = loader.from_pretrained(folder, **options)
    check_complete({"error_msgs": [], **info}, name)
    return module
