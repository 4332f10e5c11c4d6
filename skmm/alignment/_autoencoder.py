"""Alignment by autoencoders around one latent vector."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from skmm._compose._base import Modalities
from skmm._constraints import (
    FRACTION,
    NON_NEGATIVE,
    POSITIVE_INT,
    POSITIVE_REAL,
    RandomState,
    refuse_unused,
)
from skmm._environment._device import resolve_device, seeded
from skmm._training._batches import Batch, dataset_of
from skmm._training._trainer import TrainedNetworkMixin, Trainer, TrainingDefaults, threads_for
from skmm.alignment._blocks import BaseDecodingAlignment, batch_of_blocks, unpacked
from skmm.nets import GivenLoss, SharedAutoencoder

__all__ = ["AutoencoderAlignment", "AutoencoderModule"]

_ROWS_AT_ONCE = 4096


class AutoencoderAlignment(TrainedNetworkMixin, BaseDecodingAlignment):
    """Encode every modality into one latent vector from which all of them can be decoded.

    Each modality has an encoder and a decoder. They are trained so that the vector of any one
    modality, and the vector of all together, gives back the features of every modality of the row
    [1]_, and so that vectors of a row are nearer to each other than to those of other rows. So an
    absent modality can be filled in: :meth:`predict_modality`.

    Parameters
    ----------
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        As in :class:`~skmm.fusion.EarlyFusion`; two or more.
    n_components : int, default=32
        Length of the latent vector.
    hidden_sizes : tuple of int, default=(128,)
        Hidden layers of every encoder, and backwards of every decoder; ``()`` is
        linear, and wants a larger ``trainer__learning_rate``.
    dropout : float, default=0.0
        Share of the encoders' hidden units that is zeroed in training.
    reconstruction_weight : float, default=1.0
        Weight of the squared error of a modality that was encoded, its features being of variance
        1.
    cross_weight : float, default=1.0
        Weight of the squared error of a modality that is decoded from another one.
    contrastive_weight : float, default=0.1
        Weight of the contrast between partners and other rows of the batch (InfoNCE).
    temperature : float, default=0.1
        Of the contrast.
    variational : bool, default=False
        Whether each encoder gives a normal distribution, joined by the product of experts [2]_
        (MVAE), instead of a point.
    kl_weight : float, default=0.1
        Weight of the divergence from the prior, for ``variational=True``; 1 is the evidence bound
        for features of residual variance 1.
    max_epochs : int, default=None
        Most passes over the training rows; None is the trainer's, 100.
    trainer : Trainer, default=None
        How the network is trained: step sizes, batches, early stopping, callbacks. None is
        ``Trainer()``; its parameters are searched as ``trainer__learning_rate``. ``accumulate`` is
        refused where there is a contrast, which compares the rows of one step.
    all_missing : {"zeros", "raise"}, default="zeros"
        What a row without any modality gets: ``"zeros"`` gives a vector of zeros, ``"raise"``
        raises ``ModalityMissingError``.
    missing_columns : {"raise", "absent"}, default="raise"
        What to do with a frame that lacks a column of the training frame.
    device : str, default="auto"
        Where it computes: ``"auto"``, ``"cpu"``, ``"cuda"``.
    random_state : int, RandomState instance or None, default=None
        Draws weights, order of the rows and held-out rows.
    verbose : int, default=0
        Whether to print a line an epoch.

    Attributes
    ----------
    modalities_ : list of (name, transformer, columns)
        The modalities used, with their fitted transformers.
    module_ : nn.Module
        Trained network.
    net_ : skorch.NeuralNet
        What trained it; not in a pickle.
    n_components_ : int
        Length of the vectors.
    history_ : list of dict of str to float
        ``train_loss`` and, with early stopping, ``valid_loss`` of each epoch.
    n_iter_ : int
        Epochs trained.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``, if it saw names.

    See Also
    --------
    ContrastiveAlignment : The contrast alone, which is better at search.

    Notes
    -----
    Rows that have one modality only train its encoder and decoder. What ``predict_modality`` gives
    is the mean of what is possible, for the error is squared: of two images that fit a text
    equally it is the one in between.

    References
    ----------
    .. [1] Ngiam, Khosla, Kim, Nam, Lee, Ng (2011), "Multimodal deep learning", ICML.
    .. [2] Wu, Goodman (2018), "Multimodal generative models for scalable weakly-supervised
       learning", NeurIPS.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from skmm import AutoencoderAlignment
    >>> rng = np.random.default_rng(0)
    >>> shared = rng.normal(size=(300, 2))
    >>> X = pd.DataFrame({
    ...     "audio": list(shared @ rng.normal(size=(2, 6))),
    ...     "scene": list(shared @ rng.normal(size=(2, 9))),
    ... })
    >>> alignment = AutoencoderAlignment([
    ...     ("audio", "passthrough", ["audio"]), ("scene", "passthrough", ["scene"]),
    ... ], n_components=2, random_state=0).fit(X)

    The scene that belongs to an audio clip:

    >>> found = alignment.predict_modality(X[["audio"]], "scene")
    >>> truth = np.stack(X["scene"])
    >>> bool(((found - truth) ** 2).mean() < 0.1 * truth.var())
    True
    """

    module_: "AutoencoderModule"

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseDecodingAlignment._parameter_constraints,
        **TrainedNetworkMixin._training_constraints,
        "n_components": POSITIVE_INT,
        "hidden_sizes": [list, tuple],
        "dropout": FRACTION,
        "reconstruction_weight": NON_NEGATIVE,
        "cross_weight": NON_NEGATIVE,
        "contrastive_weight": NON_NEGATIVE,
        "temperature": POSITIVE_REAL,
        "variational": ["boolean"],
        "kl_weight": NON_NEGATIVE,
    }

    def __init__(
        self,
        modalities: Modalities = "auto",
        *,
        n_components: int = 32,
        hidden_sizes: Sequence[int] = (128,),
        dropout: float = 0.0,
        reconstruction_weight: float = 1.0,
        cross_weight: float = 1.0,
        contrastive_weight: float = 0.1,
        temperature: float = 0.1,
        variational: bool = False,
        kl_weight: float = 0.1,
        max_epochs: int | None = None,
        trainer: Trainer | None = None,
        all_missing: Literal["zeros", "raise"] = "zeros",
        missing_columns: Literal["raise", "absent"] = "raise",
        device: str = "auto",
        random_state: RandomState = None,
        verbose: bool | int = 0,
    ):
        self.modalities = modalities
        self.n_components = n_components
        self.hidden_sizes = hidden_sizes
        self.dropout = dropout
        self.reconstruction_weight = reconstruction_weight
        self.cross_weight = cross_weight
        self.contrastive_weight = contrastive_weight
        self.temperature = temperature
        self.variational = variational
        self.kl_weight = kl_weight
        self.max_epochs = max_epochs
        self.trainer = trainer
        self.all_missing = all_missing
        self.missing_columns = missing_columns
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def _check_settings(self) -> None:
        trainer = self._checked_trainer()
        if not (self.reconstruction_weight or self.cross_weight or self.contrastive_weight):
            raise ValueError(
                f"{type(self).__name__}: reconstruction_weight, cross_weight and"
                " contrastive_weight are all 0, so there is nothing to learn. Give one of them a"
                " positive value."
            )
        if not self.variational:
            refuse_unused(self, ["kl_weight"], "with variational=False")
        if self.contrastive_weight:
            reason = "with a contrastive_weight, whose term compares the rows of a step"
            refuse_unused(trainer, ["accumulate"], reason)
        else:
            refuse_unused(self, ["temperature"], "with contrastive_weight=0")

    def _training_defaults(self) -> TrainingDefaults:
        return TrainingDefaults(batch_size=128)

    def _fit_blocks(
        self, blocks: dict[str, np.ndarray], present: dict[str, np.ndarray], y: np.ndarray | None
    ) -> None:
        trainer, seed = self._checked_trainer(), self._draw_seed()
        batch, device = batch_of_blocks(blocks, present), resolve_device(self.device)
        nothing = torch.zeros(len(batch))  # the module gives losses
        rows = np.flatnonzero(batch.present().any(axis=1))
        held_out = trainer.hold_out(rows, None, self._training_defaults(), seed)
        with seeded(seed):
            self.module_ = AutoencoderModule(
                SharedAutoencoder(
                    [values.shape[1] for values in blocks.values()],
                    self.n_components,
                    hidden_sizes=tuple(self.hidden_sizes),
                    dropout=self.dropout,
                    variational=self.variational,
                    reconstruction_weight=self.reconstruction_weight,
                    cross_weight=self.cross_weight,
                    contrastive_weight=self.contrastive_weight,
                    kl_weight=self.kl_weight,
                    temperature=self.temperature,
                )
            )
            self.history_ = []
            self._train(
                trainer,
                dataset_of(batch, nothing, np.setdiff1d(rows, held_out), device),
                GivenLoss(),
                valid=dataset_of(batch, nothing, held_out, device) if len(held_out) else None,
            )
        self.n_components_ = self.n_components

    # --- after fit ------------------------------------------------------------------------------

    def _project(self, name: str, values: np.ndarray) -> np.ndarray:
        everywhere = np.ones(len(values), dtype=bool)
        return self._latent({name: values}, {name: everywhere})

    def _predict_block(
        self, modality: str, blocks: dict[str, np.ndarray], present: dict[str, np.ndarray]
    ) -> np.ndarray:
        return self._latent(blocks, present, decoded=self._names.index(modality))

    def _latent(
        self,
        blocks: dict[str, np.ndarray],
        present: dict[str, np.ndarray],
        decoded: int | None = None,
    ) -> np.ndarray:
        """Latent vectors that these modalities give together, or what is decoded from them."""
        device, autoencoder = self._placed(), self.module_.autoencoder
        places = [self._names.index(name) for name in blocks]
        batch, results = batch_of_blocks(blocks, present), []
        with threads_for(self.module_), torch.inference_mode():
            for start in range(0, len(batch), _ROWS_AT_ONCE):
                part = batch.rows(slice(start, start + _ROWS_AT_ONCE)).to(device)
                known, values = unpacked(part)
                experts = [
                    autoencoder.encode(place, own)
                    for place, own in zip(places, values.values(), strict=True)
                ]
                latent, _ = autoencoder.join(experts, known)
                output = latent if decoded is None else autoencoder.decode(decoded, latent)
                results.append(output.cpu().numpy())
        return np.concatenate(results)


class AutoencoderModule(nn.Module):
    """From a batch to the loss of each row.

    Parameters
    ----------
    autoencoder : SharedAutoencoder
        What computes it.
    """

    def __init__(self, autoencoder: SharedAutoencoder):
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, batch: Batch) -> Tensor:
        """Return the losses, (n_rows,)."""
        present, values = unpacked(batch)
        losses: Tensor = self.autoencoder(present, **values)
        return losses
