"""Load models of transformers from a folder: silently, without remote code, with all weights.

The code that depends on the library is here. The modules for text, images and audio build on
``Tower``, which has one interface for all architectures.
"""

import inspect
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from skmm._environment._optional import import_optional
from skmm.exceptions import CheckpointError, MissingExtraError

__all__ = [
    "LOCAL",
    "Config",
    "Tower",
    "check_complete",
    "detach",
    "is_dual",
    "is_video_model",
    "load_tower",
    "modalities_of",
    "outline",
    "quiet",
    "read_config",
    "reading",
    "tower_width",
    "try_out",
]

_NEEDED_BY = "A pretrained model"
# Never code from the folder, never the network: all files are in the folder.
LOCAL = {"trust_remote_code": False, "local_files_only": True}
# These apply the last layer norm to the pooled vector only, not to the tokens.
_LATE_NORM = {"altclip", "chinese_clip", "clip", "clipseg", "metaclip_2", "owlv2", "owlvit"}
# Models of audio whose inputs and masks are supported.
_RAW_AUDIO = {"data2vec-audio", "hubert", "unispeech", "unispeech-sat", "wav2vec2", "wavlm"}
_AUDIO = {*_RAW_AUDIO, "audio-spectrogram-transformer", "whisper"}
# Weights that may be missing: without them the pooler is not used; the other masks frames in
# training only.
_DISPENSABLE = {"pooler", "masked_spec_embed"}
# The library's verbosity is global: one thread at a time may change it.
_LIBRARY = threading.RLock()


class Config(Protocol):
    """A config of transformers; its other attributes depend on the architecture."""

    model_type: str

    def __getattr__(self, name: str) -> Any: ...


@contextmanager
def reading(name: str, what: str) -> Iterator[ModuleType]:
    """Silence the transformers package, and raise its errors as `CheckpointError`.

    Parameters
    ----------
    name : str
        Name of the checkpoint, for errors.
    what : str
        Part of the checkpoint that is read, for errors.

    Yields
    ------
    transformers : module
        The package.
    """
    with quiet() as transformers:
        try:
            yield transformers
        except (CheckpointError, MissingExtraError, MemoryError, torch.cuda.OutOfMemoryError):
            raise
        except ImportError as error:
            raise MissingExtraError(
                f"The {what} of {name!r} needs a package that cannot be imported:"
                f" {_first_line(error)}. See skmm.show_versions()."
            ) from error
        except Exception as error:  # transformers and its dependencies raise many classes
            raise CheckpointError(
                f"The {what} of {name!r} cannot be read ({type(error).__name__}:"
                f" {_first_line(error)}). Pass a folder that was written by save_pretrained."
            ) from error


@contextmanager
def quiet() -> Iterator[ModuleType]:
    """Silence the transformers package; one thread at a time."""
    transformers = import_optional("transformers", needed_by=_NEEDED_BY)
    logging = transformers.utils.logging
    with _LIBRARY:
        verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        if bars:
            logging.disable_progress_bar()
        try:
            yield transformers
        finally:
            logging.set_verbosity(verbosity)
            if bars:
                logging.enable_progress_bar()


def read_config(folder: Path, name: str) -> Config:
    """Read config.json as an instance of its class of transformers."""
    with reading(name, "config.json") as transformers:
        config: Config = transformers.AutoConfig.from_pretrained(folder, **LOCAL)
        return config


def modalities_of(config: Config, name: str) -> frozenset[str]:
    """Return the modalities that a model encodes; two for dual encoders such as CLIP."""
    model = _model_class(config, name)
    if is_dual(config, name):
        other = "image" if hasattr(model, "get_image_features") else "audio"
        return frozenset({"text", other})
    if config.model_type in _AUDIO:
        return frozenset({"audio"})
    if model.main_input_name == "pixel_values":
        return frozenset({"video" if is_video_model(config) else "image"})
    # Generators conditioned on images take input_ids too, but are no text encoders.
    others = any(hasattr(config, part) for part in ("vision_config", "audio_config"))
    if model.main_input_name == "input_ids" and not others:
        return frozenset({"text"})
    return frozenset()


def is_video_model(config: Config) -> bool:
    """Return whether a vision model takes several frames at once, as a clip."""
    return hasattr(config, "num_frames")


def is_dual(config: Config, name: str) -> bool:
    """Return whether a model encodes texts and images, or texts and audio, into one space."""
    model = _model_class(config, name)
    others = ("get_image_features", "get_audio_features")
    return hasattr(model, "get_text_features") and any(hasattr(model, other) for other in others)


def _model_class(config: Config, name: str) -> type[Any]:
    with reading(name, "model type") as transformers:
        model = transformers.MODEL_MAPPING.get(type(config), None)
    if model is None:
        raise CheckpointError(
            f"{name!r} is a {config.model_type!r} model, for which transformers has no plain"
            " encoder. Use another checkpoint, or the complete model that this is a part of."
        )
    found: type[Any] = model[0] if isinstance(model, tuple) else model
    return found


class Tower(nn.Module):
    """Encoder of one modality in a transformers model, with the same output for all models.

    Parameters
    ----------
    model : PreTrainedModel
        The loaded model.
    modality : {"text", "image", "audio"}
        Modality to encode.
    dual : bool
        Whether the model has encoders of two modalities.

    Attributes
    ----------
    has_pooler : bool
        Whether ``forward`` returns a pooled vector of the model.
    """

    model: Any  # its attributes are the architecture's

    def __init__(self, model: nn.Module, modality: str, dual: bool):
        super().__init__()
        self.model = model
        self.modality = modality
        self.dual = dual
        self.has_pooler = True
        if dual:
            others = ("vision_model", "audio_model") if modality == "text" else ("text_model",)
            for other in others:
                if hasattr(model, other):
                    setattr(model, other, None)  # free the memory of the other encoder
        self._accepted = set(inspect.signature(self._encoder()).parameters)

    def forward(self, **tensors: Tensor) -> tuple[Tensor, Tensor | None]:
        """Encode a batch.

        Parameters
        ----------
        **tensors : Tensor of shape (n_cells, ...)
            Inputs under the names of the model.

        Returns
        -------
        tokens : Tensor of shape (n_cells, n_tokens, width)
            Last hidden states, or positions of the last feature map of a convolutional network.
        pooled : Tensor of shape (n_cells, width) or None
            The model's own pooled vector.
        """
        dtype = self.model.dtype
        output = self._encoder()(
            **{
                key: value.to(dtype) if value.is_floating_point() else value
                for key, value in tensors.items()
                if key in self._accepted  # tokenizers may return more than the model takes
            }
        )
        tokens = output.last_hidden_state
        if tokens.ndim == 4:  # (n, channels, height, width)
            tokens = tokens.flatten(2).transpose(1, 2)
        if self.dual:
            tokens = self._project(tokens)
        pooled = getattr(output, "pooler_output", None) if self.has_pooler else None
        return tokens, None if pooled is None else pooled.flatten(1)

    def _encoder(self) -> Any:
        if self.dual:
            return getattr(self.model, f"get_{self.modality}_features")
        return self.model.forward

    def _project(self, tokens: Tensor) -> Tensor:
        # The model projects its pooled vector only; the same projection maps the tokens into the
        # shared space.
        if self.modality == "text":
            head = getattr(self.model, "text_projection", None)
            if head is None:  # SigLIP has it in its text model
                head = getattr(self.model.text_model, "head", None)
        elif self.modality == "audio":
            head = self.model.audio_projection
        else:
            head = getattr(self.model, "visual_projection", None)
            if self.model.config.model_type in _LATE_NORM:
                tokens = self.model.vision_model.post_layernorm(tokens)
        return tokens if head is None else head(tokens)


def tower_width(config: Config, modality: str) -> int | None:
    """Return the length of the vectors according to the config, None if it does not say."""
    if not any(hasattr(config, part) for part in ("vision_config", "audio_config")):
        width = getattr(config, "hidden_size", None)
    elif not config.model_type.startswith("siglip"):
        width = getattr(config, "projection_dim", None)
    elif modality == "image":
        width = config.vision_config.hidden_size
    else:
        text = config.text_config
        width = getattr(text, "projection_size", None) or text.hidden_size
    return None if width is None else int(width)


def outline(config: Config, name: str, tensors: dict[str, Tensor]) -> tuple[int, bool]:
    """Return the width of a vision model's tokens, and whether it pools, without its weights.

    The configs of convolutional networks have many names for the width. The model is therefore
    built on torch's "meta" device, without memory, to propagate the shapes.

    Parameters
    ----------
    config : PreTrainedConfig
        Config of a model with one encoder.
    name : str
        Name of the checkpoint, for errors.
    tensors : dict of str to Tensor
        Output of the model's processor for one image.

    Returns
    -------
    width : int
        Length of a token.
    has_pooler : bool
        Whether the model has a pooled vector of the same length.
    """
    with reading(name, "architecture") as transformers, torch.random.fork_rng(devices=[]):
        with torch.device("meta"), torch.no_grad():
            tower = Tower(transformers.AutoModel.from_config(config).eval(), "image", False)
            tokens, pooled = tower(
                **{k: torch.empty_like(v, device="meta") for k, v in tensors.items()}
            )
    width = tokens.shape[-1]
    return width, pooled is not None and pooled.shape[-1] == width


def load_tower(
    folder: Path,
    name: str,
    config: Config,
    modality: str,
    device: torch.device,
    dtype: torch.dtype,
) -> Tower:
    """Load the weights of a folder, frozen and in eval mode; none may be missing.

    Parameters
    ----------
    folder : Path
        Folder with config.json and safetensors.
    name : str
        Name of the checkpoint, for errors.
    config : PreTrainedConfig
        Result of ``read_config``.
    modality : {"text", "image", "audio"}
        Encoder of a dual model to keep.
    device : torch.device
        Device of the weights.
    dtype : torch.dtype
        Type of the weights.

    Returns
    -------
    tower : Tower
        The model. ``has_pooler`` is False if the weights of the pooler are missing.
    """
    dual = is_dual(config, name)
    # The library samples missing weights from the global generator. They are refused below, and
    # the state of the generator is restored.
    with reading(name, "weights") as transformers, torch.random.fork_rng(devices=[]):
        loader = transformers.AutoModel
        if (
            getattr(config, "is_encoder_decoder", False)
            and type(config) in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING
        ):
            loader = transformers.AutoModelForTextEncoding  # T5 without its decoder
        model, info = loader.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **LOCAL
        )
    missing = check_complete(info, name, _DISPENSABLE)
    if getattr(model.config, "is_encoder_decoder", False):
        model = model.get_encoder()
    model.requires_grad_(False).eval()
    tower = Tower(model, modality, dual)
    tower.has_pooler = not missing
    tower.eval()
    detach(tower)
    return tower.to(device)


def check_complete(
    info: Mapping[str, Any], name: str, dispensable: Collection[str] = ()
) -> list[str]:
    """Refuse incomplete weights, whose missing ones the library would sample at random.

    Parameters
    ----------
    info : dict
        Loading info of ``from_pretrained``.
    name : str
        Name of the checkpoint, for errors.
    dispensable : collection of str, default=()
        Parts of the model that may be missing.

    Returns
    -------
    missing : list of str
        Missing weights of these parts.
    """
    missing = sorted(info["missing_keys"])
    lost = [key for key in missing if key.partition(".")[0] not in dispensable]
    if lost or info["error_msgs"]:
        shown = ", ".join(lost[:5]) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
        raise CheckpointError(
            f"The weights of {name!r} are incomplete, without {shown or info['error_msgs']}."
            " Save the model again with save_pretrained, or use another checkpoint."
        )
    return missing


def try_out(tower: Tower, name: str, sample: dict[str, Tensor], width: int) -> Tower:
    """Run a loaded tower once, and check that its vectors have the expected length.

    Parameters
    ----------
    tower : Tower
        Result of ``load_tower``. Its ``has_pooler`` is updated.
    name : str
        Name of the checkpoint, for errors.
    sample : dict of str to Tensor
        A small input.
    width : int
        Expected length, determined without the weights.

    Returns
    -------
    tower : Tower
        The same tower.
    """
    device = next(tower.parameters()).device
    with reading(name, "model"), torch.no_grad():
        tokens, pooled = tower(**{key: value.to(device) for key, value in sample.items()})
    tower.has_pooler = pooled is not None and pooled.shape[-1] == width
    if tokens.shape[-1] != width:
        raise CheckpointError(
            f"{name!r} declares vectors of length {width} and returns {tokens.shape[-1]}, so skmm"
            " cannot use it. Use another checkpoint."
        )
    return tower


def detach(module: nn.Module) -> None:
    """Copy loaded weights into memory."""
    # Tensors of safetensors are mapped from the file: overwriting it would change the model.
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.clone()


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0].rstrip(".") if lines else "no message"
    return text if len(text) <= 200 else text[:197] + "..."
