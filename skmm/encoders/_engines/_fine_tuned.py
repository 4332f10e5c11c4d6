"""Engines of fine-tuned checkpoints: some weights are trained, the others are shared."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from torch import nn

from skmm.backbones import Backbone, Encoded
from skmm.backbones._frames import FrameEncoder
from skmm.backbones._pretrained._base import FrozenBackbone
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
from skmm.encoders._engines._base import Engine, HasModel, Runtime
from skmm.encoders._engines._parts import PartsEngine
from skmm.encoders._engines._pretrained import HasCheckpoint, PretrainedEngine, TrunkEngine
from skmm.encoders._engines._trained import TrainedEngine
from skmm.exceptions import CheckpointError

__all__ = ["HasFineTuning", "TunedEngine", "TunedFrames", "make_tuned", "over_frames"]

Tensors = dict[str, torch.Tensor]

# Larger steps destroy pretrained weights; adapters start from zero.
_STEP_SIZES = {"blocks": 5e-5, "full": 2e-5, "lora": 2e-4}


class HasFineTuning(HasCheckpoint, Protocol):
    """Parameters of an encoder that define which weights are trained."""

    fine_tune: Any
    lora_params: dict[str, Any] | None


def make_tuned(encoder: HasFineTuning, modality: str, device: torch.device) -> "TunedEngine":
    """Build the engine of an encoder whose ``fine_tune`` is not ``"frozen"``.

    Parameters
    ----------
    encoder : CellEncoder
        Its ``model``, ``fine_tune`` and ``lora_params`` are used.
    modality : {"text", "image", "audio", "video"}
        Modality of the checkpoint.
    device : torch.device
        Device of the weights.

    Returns
    -------
    engine : TunedEngine
        With the weights of the checkpoint.
    """
    n_blocks, kind = None, encoder.fine_tune
    if kind == "last" or not isinstance(kind, str):
        kind, n_blocks = "blocks", 1 if kind == "last" else int(kind)
    source = PretrainedEngine(encoder, modality)
    lora = dict(encoder.lora_params or {})
    backbone = TunedBackbone(source, kind, n_blocks=n_blocks, lora=lora, device=device)
    trunk = None if n_blocks is None else TrunkEngine(encoder, modality, n_blocks)
    return TunedEngine(backbone, trunk)


def over_frames(engine: "TunedEngine", *, temporal_pooling: str, owner: str) -> "TunedEngine":
    """Return an engine of videos that encodes their frames by an engine of images.

    Parameters
    ----------
    engine : TunedEngine
        Engine of images.
    temporal_pooling : {"mean", "max"}
        How the vectors of the frames are pooled.
    owner : str
        Class of the encoder, for messages.

    Returns
    -------
    engine : TunedEngine
        Engine of videos.
    """
    # As a sequence: the array of a video has the outputs of the trunk for each frame.
    trunk = None if engine.trunk is None else PartsEngine(engine.trunk, owner=owner)
    assert isinstance(engine.backbone, TunedBackbone)
    return TunedEngine(TunedFrames(engine.backbone, temporal_pooling=temporal_pooling), trunk)


class TunedEngine(TrainedEngine):
    """Engine of a fine-tuned checkpoint: a head on the stored outputs of a frozen trunk.

    Parameters
    ----------
    backbone : TunedBackbone or TunedFrames
        The head, or the whole model without a trunk.
    trunk : Engine or None
        Computes the inputs of the head; None if ``backbone`` is the whole model.
    """

    backbone: "TunedBackbone | TunedFrames"

    def __init__(self, backbone: "TunedBackbone | TunedFrames", trunk: Engine | None):
        super().__init__(backbone)
        self.trunk = trunk
        self.identity = backbone.source.identity

    @property
    def description(self) -> dict[str, Any]:
        """Description of the checkpoint."""
        return self.backbone.source.description

    def follow(self, encoder: HasModel) -> None:
        """Use another name or folder of the same frozen weights."""
        source = self.backbone.source
        source.follow(encoder)
        source.checked()
        if self.trunk is not None:
            self.trunk.follow(encoder)

    @property
    def needs_cells(self) -> bool:
        """Whether the head needs the cells in addition to the outputs of the trunk."""
        return self.backbone.needs_cells

    def head_inputs(self, arrays: Sequence[np.ndarray], cells: Sequence[Any]) -> Tensors:
        """Return the inputs of the head, from the outputs of the trunk.

        Parameters
        ----------
        arrays : sequence of ndarray
            Outputs of the trunk, one for each cell.
        cells : sequence
            The decoded cells, if the head ``needs_cells``.

        Returns
        -------
        tensors : dict of str to Tensor
            First axis: cells.
        """
        return self.backbone.stacked(arrays, cells)


class TunedBackbone(Backbone):
    """Pretrained model with some weights that are trained.

    Only those are parameters of this module and part of its pickle. The others are shared with
    all encoders of the process that use the checkpoint.

    Parameters
    ----------
    source : PretrainedEngine
        Loads the checkpoint, also after unpickling.
    kind : {"blocks", "lora", "full"}
        Which weights are trained.
    n_blocks : int or None
        Number of last blocks that are trained.
    lora : mapping
        Parameters of ``peft.LoraConfig``.
    device : torch.device
        Initial device of the weights.

    Attributes
    ----------
    step_size : float
        Default step size of the optimizer for these weights.
    """

    def __init__(
        self,
        source: PretrainedEngine,
        kind: str,
        *,
        n_blocks: int | None,
        lora: Mapping[str, Any],
        device: torch.device,
    ):
        super().__init__()
        self.source = source
        self.kind = kind
        self.n_blocks = n_blocks
        self.lora = dict(lora)
        self.width = source.n_outputs
        self.step_size = _STEP_SIZES[kind]
        self._bound: tuple[torch.device, FrozenBackbone] | None = None
        with torch.inference_mode(False), torch.enable_grad():
            chosen = self._adapters(device) if kind == "lora" else self._own_weights(device)
        self.names = list(chosen)
        self.weights = nn.ParameterList(chosen.values())

    # --- which weights are trained --------------------------------------------------------

    def _adapters(self, device: torch.device) -> dict[str, nn.Parameter]:
        pretrained = self.pretrained(device)
        tower = structure_of(pretrained.tower)
        names = add_lora(tower, self.lora, needed_by=self.source.owner)
        weights = dict(tower.named_parameters())
        return {name: weights[name] for name in names}

    def _own_weights(self, device: torch.device) -> dict[str, nn.Parameter]:
        """Copy the weights that the output depends on, without those of the trunk."""
        pretrained = self.pretrained(device)
        tower = pretrained.tower
        sample = {k: v.to(device) for k, v in pretrained.collate(pretrained.trial_cells()).items()}
        if self.n_blocks is not None:
            self._check_count(block_count(tower))
            try:
                sample = self._checked_split(pretrained, sample, device)
            except CheckpointError:
                raise
            except Exception as error:  # a model that cannot be run in two parts may raise any
                raise self._no_split(f"{type(error).__name__}: {error}") from error

        def run(part: nn.Module) -> torch.Tensor:
            encoded: Encoded = part(**sample)
            return encoded.pooled.sum() + encoded.tokens.sum()

        with torch.backends.cudnn.flags(enabled=False):  # its recurrent networks need train mode
            names = names_with_gradient(lambda new: self._part(pretrained, new), tower, run)
        weights = dict(tower.named_parameters())
        return {name: nn.Parameter(weights[name].detach().clone()) for name in names}

    def _check_count(self, n: int) -> None:
        assert self.n_blocks is not None
        if not n:
            raise ValueError(
                f"{self.source.owner}: fine_tune={self.n_blocks}, but"
                f" {str(self.source.model)!r} is not made of blocks. Use fine_tune='full'."
            )
        if self.n_blocks > n:
            raise ValueError(
                f"{self.source.owner}: fine_tune={self.n_blocks}, but {str(self.source.model)!r}"
                f" has {n} {'block' if n == 1 else 'blocks'}. Give at most {n}, or"
                " fine_tune='full'."
            )

    def _checked_split(
        self, pretrained: FrozenBackbone, sample: Tensors, device: torch.device
    ) -> Tensors:
        """Return inputs of the last blocks, after checking that the split model is equivalent."""
        lower = pretrained.with_tower(Trunk(pretrained.tower, self.n_blocks or 1).eval())
        with torch.no_grad():
            arrays = lower.trunk_arrays(**sample)
            inputs = pretrained.head_inputs(arrays, pretrained.trial_cells())
            inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
            whole, parts = pretrained(**sample), self._part(pretrained, {}).eval()(**inputs)
        mask = whole.mask[..., None]
        scale = float(whole.tokens.abs().max()) + 1e-6
        for one, other in ((whole.pooled, parts.pooled), (whole.tokens, parts.tokens)):
            difference = (one - other).abs() if one.ndim == 2 else ((one - other) * mask).abs()
            if not float(difference.max()) <= 1e-3 * scale:
                raise self._no_split("its last blocks use more than the outputs of the others")
        if not torch.equal(whole.mask, parts.mask):
            raise self._no_split("its last blocks have other tokens")
        return inputs

    def _no_split(self, reason: str) -> CheckpointError:
        return CheckpointError(
            f"{self.source.owner}: fine_tune={self.n_blocks} cannot split"
            f" {str(self.source.model)!r} before its last blocks ({reason}). Use"
            " fine_tune='lora' or 'full'."
        )

    # --- the assembled model ----------------------------------------------------------------

    def pretrained(self, device: torch.device | None = None) -> FrozenBackbone:
        """Return the frozen model, which is shared and must not be changed."""
        device = self.weights[0].device if device is None else device
        with torch.inference_mode(False):  # its weights are used together with trained ones
            return self.source.backbone_on(Runtime(device, torch.float32, 1))

    def _part(
        self, pretrained: FrozenBackbone, replaced: Mapping[int, torch.Tensor]
    ) -> FrozenBackbone:
        tower = without_layerdrop(structure_of(pretrained.tower, replaced))
        if self.n_blocks is not None:
            part, blank = pretrained.head_part(tower)
            tower = LastBlocks(part, self.n_blocks, blank)
        return pretrained.with_tower(tower)

    def _bind(self, device: torch.device) -> FrozenBackbone:
        pretrained = self.pretrained(device)
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
            if self.kind == "lora":
                tower = without_layerdrop(structure_of(pretrained.tower))
                add_lora(tower, self.lora, needed_by=self.source.owner)
                for name, weight in zip(self.names, self.weights, strict=True):
                    put_parameter(tower, name, weight)
                return pretrained.with_tower(tower)
            frozen = dict(pretrained.tower.named_parameters())
            pairs = zip(self.names, self.weights, strict=True)
            return self._part(pretrained, {id(frozen[name]): weight for name, weight in pairs})

    def _model(self) -> FrozenBackbone:
        """Return the model on the device of the trained weights, in the mode of this module."""
        device = self.weights[0].device
        bound = self._bound
        if bound is None or bound[0] != device:
            # In a tuple, so that it is not a submodule: most of its weights are shared.
            bound = (device, self._bind(device))
            _set_mode(bound[1], self.training)
            self._bound = bound
        return bound[1]

    def train(self, mode: bool = True) -> Self:
        """Switch dropout; batch normalization keeps the checkpoint's statistics."""
        super().train(mode)
        if self._bound is not None:
            _set_mode(self._bound[1], mode)
        return self

    # --- implementation of Backbone ---------------------------------------------------------

    def collate(self, cells: Sequence[Any]) -> Tensors:
        """Turn decoded cells into the input tensors of the checkpoint."""
        return self.pretrained().collate(cells)

    @property
    def needs_cells(self) -> bool:
        """Whether ``stacked`` needs the cells."""
        return self.pretrained().needs_cells

    def stacked(self, arrays: Sequence[np.ndarray], cells: Sequence[Any]) -> Tensors:
        """Return the inputs of the last blocks, from the outputs of the trunk.

        Parameters
        ----------
        arrays : sequence of ndarray
            Outputs of ``TrunkEngine``, one for each cell.
        cells : sequence
            The cells, if this backbone ``needs_cells``.

        Returns
        -------
        tensors : dict of str to Tensor
            First axis: cells.
        """
        try:
            return self.pretrained().head_inputs(arrays, cells)
        except ValueError as error:  # of numpy, without the reason
            if len({array.shape for array in arrays}) == 1:
                raise
            raise self.unequal() from error

    def unequal(self) -> ValueError:
        """Return the error of cells of different sizes in one batch."""
        return ValueError(
            f"{self.source.owner}: {str(self.source.model)!r} does not resize images, so images of"
            " different sizes cannot be stacked. Use fine_tune='frozen'."
        )

    def forward(self, **tensors: torch.Tensor) -> Encoded:
        """Encode the tensors of ``collate``, or with ``n_blocks`` those of ``stacked``."""
        model = self._model()
        # Tensors of a whole column are padded to its longest cell.
        encoded = model(**model.trim(tensors))
        return Encoded(encoded.tokens, encoded.mask, encoded.pooled.float())

    def reconstruction_target(self, **tensors: torch.Tensor) -> torch.Tensor:
        """Raise ValueError: a pretrained model is trained with a target only."""
        raise ValueError(
            f"{self.source.owner} with fine_tune needs y, or a joint fusion around it. Give y, or"
            " use fine_tune='frozen'."
        )

    # --- copies and pickles ----------------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, Any]) -> "TunedBackbone":
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        new.__dict__.update(copy.deepcopy({**self.__dict__, "_bound": None}, memo))
        return new

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_bound": None}
        state["_modules"] = {}
        state["_arrays"] = [weight.detach().cpu().numpy() for weight in self.weights]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        arrays = state.pop("_arrays")
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.weights = nn.ParameterList(nn.Parameter(torch.tensor(array)) for array in arrays)


def _set_mode(model: FrozenBackbone, mode: bool) -> None:
    model.tower.train(mode)
    for module in model.tower.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


class TunedFrames(FrameEncoder):
    """Fine-tuned model of images that encodes the frames of videos.

    Parameters
    ----------
    images : TunedBackbone
        Encodes a frame.
    temporal_pooling : {"mean", "max"}
        How the vectors of the frames are pooled.

    Attributes
    ----------
    step_size : float
        Default step size of the optimizer for the weights of ``images``.
    """

    needs_cells: ClassVar[bool] = False
    images: TunedBackbone

    def __init__(self, images: TunedBackbone, *, temporal_pooling: str):
        super().__init__(images, temporal_pooling=temporal_pooling)
        self.source = images.source
        self.step_size = images.step_size

    def stacked(self, arrays: Sequence[np.ndarray], cells: Sequence[Any]) -> dict[str, Any]:
        """Return the inputs of the last blocks, from the outputs of the trunk.

        Parameters
        ----------
        arrays : sequence of ndarray of shape (n_frames, ...)
            Outputs of the trunk, one array for each video.
        cells : sequence
            Ignored.

        Returns
        -------
        tensors : dict of str to Tensor
            ``n_frames`` and ``hidden``, padded with zeros after the frames of a shorter video.
        """
        if len({array.shape[1:] for array in arrays}) > 1:
            raise self.images.unequal()
        n_frames = torch.tensor([len(array) for array in arrays], dtype=torch.int64)
        hidden = torch.zeros(len(arrays), int(n_frames.max()), *arrays[0].shape[1:])
        for row, array in enumerate(arrays):
            hidden[row, : len(array)] = torch.from_numpy(np.array(array))
        return {"n_frames": n_frames, "hidden": hidden}

    def reconstruction_target(self, **tensors: torch.Tensor) -> torch.Tensor:
        """Raise ValueError: a pretrained model is trained with a target only."""
        return self.images.reconstruction_target(**tensors)
