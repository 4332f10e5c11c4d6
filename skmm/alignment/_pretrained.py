"""Alignment by a pretrained checkpoint with two towers: CLIP, SigLIP or CLAP."""

from os import PathLike
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.utils import Tags, check_consistent_length
from sklearn.utils.validation import check_is_fitted

from skmm._compose._base import Modalities, Modality
from skmm._compose._block import Block
from skmm._compose._default_encoder import default_encoder
from skmm._constraints import DEVICE, DTYPE, STORE, VERBOSE, StrOptions
from skmm._frame._column import column_names, take_columns
from skmm._frame._types import CellColumn, Frame
from skmm.alignment._base import BaseAlignment, Cells

__all__ = ["PretrainedAlignment"]

_MODALITIES = ("text", "image", "audio")


class PretrainedAlignment(BaseAlignment[np.ndarray]):
    """Encode modalities by a pretrained checkpoint whose towers share a space.

    CLIP [1]_ and SigLIP [2]_ (text and images) and CLAP [3]_ (text and audio) were trained by
    contrastive learning on millions of pairs. Nothing is trained here: each cell is encoded by
    the tower of its modality, and every vector is kept in the store. A tower can also encode a
    modality that is not in the training frame, so that a text can query images that have no
    texts.

    Parameters
    ----------
    model : str or path, default="openai/clip-vit-base-patch32"
        Hub name or local folder of the checkpoint, as in the encoders.
    modalities : list of (name, transformer, columns) or "auto", default="auto"
        Triples as in ``ColumnTransformer``, of one column each. ``transformer`` is ``"text"``,
        ``"image"``, ``"audio"`` or ``"drop"``, or an encoder such as ``ImageEncoder()``, which
        keeps its parameters except ``model`` and ``pooling``. ``"auto"`` infers the modalities
        from the training frame and uses those of texts, images and audio.
    all_missing : {"zeros", "raise"}, default="zeros"
        What a row without any modality gets: ``"zeros"`` gives a vector of zeros, ``"raise"``
        raises ``ModalityMissingError``.
    missing_columns : {"raise", "absent"}, default="raise"
        What happens if a column of the training frame is not in ``X``: ``"raise"`` raises
        ``ValueError``, ``"absent"`` treats the column as missing in every row.
    device : str, default="auto"
        Device of the towers: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    dtype : {"auto", "float32", "bfloat16", "float16"}, default="auto"
        Precision of the weights. ``"auto"`` is bfloat16 on a GPU that supports it, else float32.
    store : path, EmbeddingStore, False or None, default=None
        Where vectors are kept, as in the encoders.
    verbose : bool or int, default=0
        Whether the towers report how many cells are encoded, the speed and the time left.

    Attributes
    ----------
    modalities_ : list of (name, transformer, columns)
        The modalities used. Each transformer is a fitted encoder, the tower of its modality.
    n_components_ : int
        Number of dimensions of the common space.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of str
        Names of the columns seen in ``fit``. Defined only if ``X`` has column names.

    See Also
    --------
    ContrastiveAlignment : Learn a space from your own pairs.

    References
    ----------
    .. [1] Radford et al. (2021), "Learning transferable visual models from natural language
       supervision", ICML.
    .. [2] Zhai, Mustafa, Kolesnikov, Beyer (2023), "Sigmoid loss for language image
       pre-training", ICCV.
    .. [3] Wu et al. (2023), "Large-scale contrastive language-audio pretraining with feature
       fusion and keyword-to-caption augmentation", ICASSP.

    Examples
    --------
    >>> from skmm import PretrainedAlignment
    >>> alignment = PretrainedAlignment("openai/clip-vit-base-patch32")
    >>> images = alignment.fit_transform(X[["photo"]])  # doctest: +SKIP
    >>> query = alignment.transform_modality(["a photo of a dog"], "text")  # doctest: +SKIP
    >>> (images @ query.T).argmax()  # doctest: +SKIP
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseAlignment._parameter_constraints,
        "model": [str, PathLike],
        "modalities": [StrOptions({"auto"}), list, tuple],
        "device": DEVICE,
        "dtype": DTYPE,
        "store": STORE,
        "verbose": VERBOSE,
    }

    def __init__(
        self,
        model: str | PathLike[str] = "openai/clip-vit-base-patch32",
        modalities: Modalities = "auto",
        *,
        all_missing: Literal["zeros", "raise"] = "zeros",
        missing_columns: Literal["raise", "absent"] = "raise",
        device: str = "auto",
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        store: object = None,
        verbose: bool | int = 0,
    ):
        self.model = model
        self.modalities = modalities
        self.all_missing = all_missing
        self.missing_columns = missing_columns
        self.device = device
        self.dtype = dtype
        self.store = store
        self.verbose = verbose

    def fit(self, X: Frame, y: ArrayLike | None = None) -> Self:
        """Resolve the columns of the modalities and load the towers; nothing is trained.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns)
            Samples, one in each row. A row may lack any of the modalities.
        y : None
            Ignored.

        Returns
        -------
        self : object
            The fitted alignment.
        """
        self._validate_params()
        X = self._check_frame(X, reset=True)
        if y is not None:
            check_consistent_length(X, y)
        blocks = []
        for modality in self._cells_of(X):
            block = Block(modality)
            block.input_names = column_names(X, modality.columns)
            block.transformer = self._tower(modality).fit(take_columns(X, block.input_names))
            blocks.append(block)
        widths = {block.name: int(block.transformer.n_outputs_) for block in blocks}
        if len(set(widths.values())) > 1:
            raise ValueError(
                f"{type(self).__name__}: the towers of {str(self.model)!r} have different numbers"
                f" of outputs, {widths}, and so no shared space. Use a checkpoint of CLIP, SigLIP"
                " or CLAP."
            )
        self._towers = {block.name: block.transformer for block in blocks}
        self.n_components_ = next(iter(widths.values()))
        self._set_modalities(X, blocks)
        if self.all_missing == "raise":
            self._refuse_empty(
                np.column_stack([self._read(name, X).present for name in self._names])
            )
        return self

    def _cells_of(self, X: Frame) -> list[Modality]:
        """Return the triples of texts, images and audio, and refuse others that were given."""
        owner, found = type(self).__name__, []
        for modality in self._resolve(X):
            kind = getattr(modality.transformer, "modality", None)
            if kind not in _MODALITIES:
                if isinstance(self.modalities, str):
                    continue
                raise ValueError(
                    f"{owner}: modality {modality.name!r} must be an encoder of texts, images or"
                    f" audio, got {modality.transformer!r}. Name it 'text', 'image' or 'audio'."
                )
            n_columns = len(column_names(X, modality.columns))
            if n_columns > 1:
                raise ValueError(
                    f"{owner}: modality {modality.name!r} has {n_columns} columns, and a tower"
                    " encodes a single column. Make each column a modality."
                )
            found.append(modality)
        if not found:
            raise ValueError(
                f"{owner} found no texts, images or audio in X with"
                f" n_features={self.n_features_in_}. Give triples such as ('photo', 'image',"
                " ['photo'])."
            )
        return found

    def _tower(self, modality: Modality) -> Any:
        """Return an unfitted encoder that uses the checkpoint's tower for a modality."""
        tower = clone(modality.transformer)
        tower.set_params(model=self.model, pooling="pooler")
        if not any(
            modality.transformer is transformer for _, transformer in self._named_transformers
        ):
            tower.set_params(
                device=self.device, dtype=self.dtype, store=self.store, verbose=self.verbose
            )
        return tower

    def _read(self, name: str, X: Frame) -> Cells[np.ndarray]:
        (place,) = self._places[name]
        return _present(self._towers[name].transform(take_columns(X, [place])))

    def _project(self, name: str, values: np.ndarray) -> np.ndarray:
        return values

    def transform_modality(self, X: CellColumn, modality: str) -> np.ndarray:
        """Return the vectors of one modality.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_columns), Series or list of cells
            Only the column of this modality is required and read. ``X`` may be its cells alone.
        modality : str
            Name of the modality. It may also be ``"text"``, ``"image"`` or ``"audio"`` if the
            checkpoint has such a tower and ``fit`` got no modality of that name; ``X`` then holds
            the cells alone.

        Returns
        -------
        vectors : ndarray of shape (n_samples, n_components), float32
            Vectors of unit length; NaN for a row without the modality.

        Raises
        ------
        ValueError
            If there is no such modality, or its column is not in ``X``.
        """
        check_is_fitted(self)
        if modality in self._names or modality not in _MODALITIES:
            return super().transform_modality(X, modality)
        tower = self._tower(Modality(modality, default_encoder(modality), [0]))
        return self._scattered(modality, _present(tower.fit(X).transform(X)))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        return tags


def _present(encoded: ArrayLike) -> Cells[np.ndarray]:
    """Return the vectors of the rows that have one; an encoder returns NaN for the others."""
    vectors = np.asarray(encoded, dtype=np.float32)
    present = ~np.isnan(vectors[:, 0])
    return Cells(vectors[present], present)
