"""Alignment by autoencoders with one latent space."""

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
from skmm.nets._autoencoder import GivenLoss, SharedAutoencoder

__all__ = ["AutoencoderAlignment", "AutoencoderModule"]

_ROWS_AT_ONCE = 4096


class AutoencoderAlignment(TrainedNetworkMixin, BaseDecodingAlignment):
    """Encode each modality into a shared latent space from which all modalities are decoded.

    Each modality has an encoder and a decoder. They are trained to reconstruct the features of
    every modality of a row from the latent vector of any single modality and of all together
    [1]_. A contrastive term keeps the vectors of a row nearer to each other than to those of other
    rows. The features of a missing modality are predicted by :meth:`predict_modality`.

    Parameters
    ----------
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        Two or more triples as in :class:`~skmm.fusion.EarlyFusion`.
    n_components : int, default=32
        Number of dimensions of the latent space.
    hidden_sizes : tuple of int, default=(128,)
        Sizes of the hidden layers of each encoder; those of each decoder are the same in reverse
        order. ``()`` is a linear autoencoder, which needs a larger ``trainer__learning_rate``.
    dropout : float, default=0.0
        Fraction of the encoders' hidden units that is zeroed in training. Dropout would blur the
        features that are reconstructed, so the default is 0.
    reconstruction_weight : float, default=1.0
        Weight of the squared error of a modality that is decoded from itself or from all
        together. Features are scaled to variance 1.
    cross_weight : float, default=1.0
        Weight of the squared error of a modality that is decoded from another one.
    contrastive_weight : float, default=0.1
        Weight of the contrastive loss (InfoNCE) of partners against other rows of the batch.
    temperature : float, default=0.1
        What similarities are divided by before the softmax of the contrastive loss.
    variational : bool, default=False
        Whether each encoder returns a normal distribution instead of a point. The distributions
        of a row are multiplied: a product of experts, as in MVAE [2]_.
    kl_weight : float, default=0.1
        Weight of the Kullback-Leibler divergence from the prior, for ``variational=True``. 1 is
        the evidence lower bound for features with a residual variance of 1.
    max_epochs : int, default=None
        Maximum number of passes over the training rows. None is the trainer's, 100.
    trainer : Trainer, default=None
        Options of the training: learning rates, batches, early stopping, callbacks. None is
        ``Trainer()``. ``set_params`` and searches reach its parameters by names such as
        ``trainer__learning_rate``, even if ``trainer`` is None. With a ``contrastive_weight``,
        whose loss compares the rows of a batch, ``accumulate`` above 1 raises ``ValueError``.
    all_missing : {"zeros", "raise"}, default="zeros"
        What a row without any modality gets: ``"zeros"`` gives a vector of zeros, ``"raise"``
        raises ``ModalityMissingError``.
    missing_columns : {"raise", "absent"}, default="raise"
        What happens if a column of the training frame is not in ``X``: ``"raise"`` raises
        ``ValueError``, ``"absent"`` treats the column as missing in every row.
    device : str, default="auto"
        Device of the network: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, the order of the rows, dropout and the held-out rows.
    verbose : bool or int, default=0
        Whether to print a line per epoch.

    Attributes
    ----------
    modalities_ : list of (name, transformer, columns)
        The modalities used, with their fitted transformers.
    module_ : nn.Module
        Trained network.
    net_ : skorch.NeuralNet
        The skorch net that trained ``module_``. It is not part of a pickle.
    n_components_ : int
        Number of dimensions of the latent space.
    history_ : list of dict
        One dict per epoch, with ``epoch`` from 1, ``train_loss`` and, if rows are held out,
        ``valid_loss``.
    n_iter_ : int
        Number of epochs trained.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``. Defined only if ``X`` has column names.

    See Also
    --------
    ContrastiveAlignment : The contrastive loss alone, which is better for retrieval.

    Notes
    -----
    A row with a single modality trains the encoder and the decoder of that modality. Decoders
    minimize the squared error, so ``predict_modality`` returns a conditional mean: if two images
    fit a text equally well, it returns the features of their average.

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

    Predict the features of scenes from audio:

    >>> predicted = alignment.predict_modality(X[["audio"]], "scene")
    >>> truth = np.stack(X["scene"])
    >>> bool(((predicted - truth) ** 2).mean() < 0.1 * truth.var())
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
                " contrastive_weight are all 0, so there is no loss. Set one of them to a positive"
                " value."
            )
        if not self.variational:
            refuse_unused(self, ["kl_weight"], "with variational=False")
        if self.contrastive_weight:
            reason = "with a contrastive_weight, whose loss compares the rows of a batch"
            trainer.refuse_accumulate(reason)
        else:
            refuse_unused(self, ["temperature"], "with contrastive_weight=0")

    def _training_defaults(self) -> TrainingDefaults:
        return TrainingDefaults(batch_size=128)

    def _fit_blocks(
        self, blocks: dict[str, np.ndarray], present: dict[str, np.ndarray], y: np.ndarray | None
    ) -> None:
        trainer, seed = self._checked_trainer(), self._draw_seed()
        batch, device = batch_of_blocks(blocks, present), resolve_device(self.device)
        no_target = torch.zeros(len(batch))  # the module itself returns losses
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
                dataset_of(batch, no_target, np.setdiff1d(rows, held_out), device),
                GivenLoss(),
                valid=dataset_of(batch, no_target, held_out, device) if len(held_out) else None,
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
        """Return the joint latent vectors of some modalities, or a modality decoded from them."""
        device, autoencoder = self._placed(), self.module_.autoencoder
        places = [self._names.index(name) for name in blocks]
        batch, results = batch_of_blocks(blocks, present), []
        with threads_for(self.module_), torch.inference_mode():
            for start in range(0, len(batch), _ROWS_AT_ONCE):
                part = batch.rows(slice(start, start + _ROWS_AT_ONCE)).to(device)
                known, values = unpacked(part)
                encoded = [
                    autoencoder.encode(place, own)
                    for place, own in zip(places, values.values(), strict=True)
                ]
                latent, _ = autoencoder.join(encoded, known)
                output = latent if decoded is None else autoencoder.decode(decoded, latent)
                results.append(output.cpu().numpy())
        return np.concatenate(results)


class AutoencoderModule(nn.Module):
    """Network from a batch to the loss of each row.

    Parameters
    ----------
    autoencoder : SharedAutoencoder
        Network that computes the losses.
    """

    def __init__(self, autoencoder: SharedAutoencoder):
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, batch: Batch) -> Tensor:
        """Return the losses, (n_rows,)."""
        present, values = unpacked(batch)
        losses: Tensor = self.autoencoder(present, **values)
        return losses
