"""Balanced learning: no modality that is learned quickly stops the learning of the others."""

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from skmm.nets._task_loss import TaskLoss
from skmm.nets.fusion._unimodal import UnimodalHeads

if TYPE_CHECKING:
    from skmm._training._module import JointModule

__all__ = ["NETWORKS", "Balance", "balance_options", "make_balance", "step_factors"]

# Prefix of the names of parameters of encoders that are trained with a module.
NETWORKS = "encoders.networks"

# Of each mode, its parameters and their defaults.
_DEFAULTS: dict[str, dict[str, float]] = {
    "gradient": {"alpha": 1.0, "noise": 0.0},
    "auxiliary": {"weight": 1.0},
}


class Balance(nn.Module):
    """Balance the modalities in training by a head for each of them.

    Parameters
    ----------
    heads : UnimodalHeads
        A head for each modality.
    mode : {"gradient", "auxiliary"}
        Whether the steps of the leading modality are shortened, or the losses of the heads
        also train the networks of the modalities.
    options : mapping of str to float
        From `balance_options`.
    own : mapping of str to sequence of str
        Names of the parameters of each modality in the joint module, as patterns.
    """

    def __init__(
        self,
        heads: UnimodalHeads,
        mode: str,
        options: Mapping[str, float],
        own: Mapping[str, Sequence[str]],
    ):
        super().__init__()
        self.heads = heads
        self.mode = mode
        self.options = dict(options)
        self.own = {name: list(patterns) for name, patterns in own.items()}
        self._seen: tuple[Tensor, Tensor] | None = None
        self._sums: Tensor | None = None  # (2, n_modalities): of scores, of weights

    @property
    def modulates(self) -> bool:
        """Whether the steps are shortened."""
        return self.mode == "gradient"

    def look(
        self, fusion: nn.Module, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor]
    ) -> None:
        """Let the heads predict from a training batch."""
        outputs, present = self.heads(fusion, tokens, masks)
        self._seen = outputs.float(), present

    def losses(self, criterion: nn.Module, target: Tensor, weight: Tensor | None) -> Tensor | None:
        """Return what is added to the loss of each row of the last batch.

        Also accumulates the score of each modality alone, over the rows that have it.
        """
        if self._seen is None:
            return None
        (outputs, present), self._seen = self._seen, None
        found = [row_losses(criterion, own, target) for own in outputs.unbind(dim=1)]
        # Not a product with the mask: values of absent modalities may not be finite.
        losses = torch.where(present, torch.stack([loss for loss, _ in found], dim=1), 0.0)
        if not self.modulates:
            return self.options["weight"] * losses.sum(dim=1)
        with torch.no_grad():
            rows = present.float() if weight is None else present * weight[:, None]
            scores = torch.where(present, torch.stack([score for _, score in found], dim=1), 0.0)
            sums = torch.stack([(rows * scores).sum(dim=0), rows.sum(dim=0)])
            self._sums = sums if self._sums is None else self._sums + sums
        return losses.sum(dim=1)

    def shorten(self, groups: Sequence[dict[str, Any]]) -> None:
        """Shorten the next step of the parameters of leading modalities.

        The step is scaled and not the gradient, whose scale AdamW removes.
        """
        if self._sums is None:
            return
        factors = step_factors(self._sums[0], self._sums[1], self.options["alpha"]).tolist()
        self._sums = None
        by_name = dict(zip(self.heads.modalities, factors, strict=True))
        for group in groups:
            name = group.get("modality")
            if name is None:
                continue
            group["lr"] = group["lr"] * by_name[name]
            if self.options["noise"]:
                self._shake(group["params"])

    def _shake(self, parameters: Sequence[Tensor]) -> None:
        for parameter in parameters:
            if parameter.grad is not None and parameter.numel() > 1:
                noise = torch.randn_like(parameter.grad)
                parameter.grad += self.options["noise"] * parameter.grad.std() * noise

    def __getstate__(self) -> dict[str, Any]:
        # Part of the autograd graph of a batch, which cannot be copied.
        return {**self.__dict__, "_seen": None, "_sums": None}


def row_losses(criterion: nn.Module, outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss of each row and its score, the exponential of the negative loss.

    With cross-entropy that is the probability of the truth. Of several outputs the mean of both,
    of several tasks what the criterion says.

    Returns
    -------
    losses, scores : Tensor of shape (n_rows,)
        The scores carry no gradient.
    """
    if isinstance(criterion, TaskLoss):
        return criterion.alone(outputs, target)
    losses = criterion(outputs, target)
    scores = torch.exp(-losses.detach())
    if losses.ndim > 1:
        return losses.mean(dim=1), scores.mean(dim=1)
    return losses, scores


def step_factors(sums: Tensor, weights: Tensor, alpha: float) -> Tensor:
    """Return the factors that multiply the steps of each modality [1]_.

    The ratio of a modality is its mean score to that of the others; with two modalities it is that
    of the paper. Where it is above 1 the factor is ``1 - tanh(alpha * ratio)``, else 1.

    Parameters
    ----------
    sums : Tensor of shape (n_modalities,)
        Sum of the scores of the rows that have the modality.
    weights : Tensor of shape (n_modalities,)
        Sum of the weights of these rows; 0 where a batch has none.
    alpha : float
        How strongly a modality is held back.

    References
    ----------
    .. [1] Peng, Wei, Deng, Wang, Hu (2022), "Balanced multimodal learning via on-the-fly gradient
       modulation", CVPR.
    """
    there = weights > 0
    scores = torch.where(there, sums / torch.where(there, weights, 1.0), 0.0)
    n_others = there.sum() - 1
    others = (scores.sum() - scores) / n_others.clamp(min=1)
    ratios = scores / others.clamp(min=torch.finfo(scores.dtype).tiny)
    ahead = there & (n_others > 0) & (ratios > 1)
    return torch.where(ahead, 1 - torch.tanh(alpha * ratios), 1.0)


def balance_options(
    owner: str, balance: str | None, params: Mapping[str, float] | None
) -> dict[str, float]:
    """Check ``balance_params`` and return all options of the mode, none without a mode."""
    given = dict(params or {})
    known = _DEFAULTS.get(balance or "", {})
    for name, value in given.items():
        if name not in known:
            takes = f"{sorted(known)}" if known else "none"
            raise ValueError(
                f"{owner}: balance={balance!r} takes no parameter {name!r}. It takes {takes}."
            )
        number = float(value) if isinstance(value, Real) else float("nan")
        if isinstance(value, bool) or not 0 <= number < float("inf"):
            raise ValueError(
                f"{owner}: {name!r} in balance_params is {value!r}. Give a number that is at"
                " least 0."
            )
    return {**known, **{name: float(value) for name, value in given.items()}}


def make_balance(
    owner: str,
    mode: str,
    options: Mapping[str, float],
    module: "JointModule",
    widths: Mapping[str, int],
    make_head: Callable[[int], nn.Module],
) -> Balance:
    """Build the heads of a joint module without changing the state of the random generator.

    Parameters
    ----------
    owner : str
        Class of the estimator, for messages.
    mode : {"gradient", "auxiliary"}
        What is done with them.
    options : mapping of str to float
        From `balance_options`.
    module : JointModule
        What is balanced.
    widths : mapping of str to int
        Width of the tokens of each modality, their number of features.
    make_head : callable
        From a width to an untrained head.
    """
    own = own_parameters(module)
    if not any(own.values()):
        raise ValueError(
            f"{owner}: balance={mode!r} finds nothing to balance, for no encoder is trained and"
            f" strategy {type(module.fusion).__name__} names no layers of single modalities. Give"
            " it an own_layers() method, or leave balance out."
        )
    with torch.random.fork_rng(devices=[]):
        heads = UnimodalHeads(module.fusion, widths, make_head, detached=mode == "gradient")
    return Balance(heads, mode, options, own)


def own_parameters(module: "JointModule") -> dict[str, list[str]]:
    """Return patterns of the names of parameters of single modalities, by modality."""
    names = {id(part): name for name, part in module.named_modules()}
    own: dict[str, list[str]] = {name: [] for name in module.modalities}
    for i, name in enumerate(module.encoders.trained):
        own[name].append(f"{NETWORKS}.{i}.*")
    for name, layer in UnimodalHeads.layers_of(module.fusion).items():
        own[name].append(f"{names[id(layer)]}.*")
    return own
