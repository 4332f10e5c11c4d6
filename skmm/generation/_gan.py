"""Pictures by a game: a generator draws, and a discriminator tells its pictures from real ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from skmm._training._module import SEPARATOR
from skmm._training._net import Callback
from skmm.exceptions import ConvergenceError
from skmm.generation._image_modules import PICTURE, PictureModule, to_units

__all__ = ["AdversarialModule", "WatchGame", "set_players"]

_BETAS = (0.0, 0.99)  # no momentum: the gradient of a game turns
# Spread of generated pictures, as a share of that of real ones, below which they are all alike.
_ALIKE = 0.02
# A hinge loss of the discriminator below which it is sure of every picture.
_SURE = 0.005


class AdversarialModule(PictureModule):
    """A generator and its discriminator, each with a fusion of its own.

    Encoders that are trained here learn with the discriminator, which has to know what a picture
    should be of; the generator takes their vectors as they are.

    Parameters
    ----------
    *args : object
        Of :class:`PictureModule`; ``head`` is called with noise and conditions.
    judge : nn.Module
        Discriminator: its ``look`` takes pictures, itself features and conditions.
    judge_fusion : nn.Module
        From tokens and masks to the condition as the discriminator sees it.
    **options : object
        Of :class:`PictureModule`.
    """

    def __init__(self, *args: Any, judge: nn.Module, judge_fusion: nn.Module, **options: Any):
        super().__init__(*args, **options)
        self.judge: Any = judge
        self.judge_fusion: Any = judge_fusion
        self.judge_nothing = nn.Parameter(torch.zeros(self.n_components))
        self.losses: dict[str, Tensor] = {}  # of the last step

    def players(self) -> list[nn.Parameter]:
        """Return the parameters that learn with the discriminator, those of encoders aside."""
        parts = [*self.judge.parameters(), *self.judge_fusion.parameters()]
        return [*parts, self.judge_nothing]

    def finish(self) -> None:
        """Keep the generator alone, its weights averaged."""
        super().finish()
        del self.judge, self.judge_fusion, self.judge_nothing

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return the losses of both players added up, (n_rows,), for a step in training.

        Neither gets a gradient from the loss of the other.
        """
        real = to_units(inputs[PICTURE])
        tokens, known = self.gather(**inputs)
        keeps = self.kept(known)
        _, masks = self.completed(tokens, known)
        taken = {name: values.detach() for name, values in tokens.items()}
        asked = torch.where(keeps[:, None], self.fusion(taken, masks), self.nothing)
        judged = self.judge_fusion(tokens, masks)
        judged = torch.where(keeps[:, None], judged, self.judge_nothing)
        fake = self.head(torch.randn(len(real), self.head.n_noise, device=real.device), asked)

        features, drawn = self.judge.look(torch.cat([real, fake.detach()])).chunk(2)
        other = torch.roll(torch.arange(len(real), device=real.device), 1)
        differs = self._differ(inputs, other) & keeps & keeps[other]
        # Real, drawn, and real under the condition of another row: at once, for the spectral norms
        # are found anew in each pass.
        seen = torch.cat([features, drawn, features])
        scores = self.judge(seen, torch.cat([judged, judged, judged[other]]))
        of_real, of_drawn, of_wrong = scores.float().chunk(3)
        judging = discriminator_loss(of_real, of_drawn, of_wrong, differs)
        with _frozen(self.judge):
            fooling = -self.judge(self.judge.look(fake), judged.detach()).float()
        self.losses = {
            "discriminator_loss": judging.detach().mean(),
            "generator_loss": fooling.detach().mean(),
            "spread": _relative_spread(fake.detach(), real),
        }
        return judging + fooling

    def _differ(self, inputs: dict[str, Tensor], other: Tensor) -> Tensor:
        """Which rows have other cells than their partner: else its condition is not wrong."""
        differs = torch.zeros(len(other), dtype=torch.bool, device=other.device)
        for name, tensor in inputs.items():
            if name.rpartition(SEPARATOR)[0]:  # of a modality
                differs |= (tensor != tensor[other])[:, None].flatten(1).any(dim=1)
        return differs

    def draw(self, noise: Tensor, condition: Tensor, **_: Any) -> Tensor:
        """Return pictures (n_rows, n_colors, image_size, image_size) in [-1, 1]."""
        return self.head(noise, condition)


def discriminator_loss(real: Tensor, fake: Tensor, wrong: Tensor, differs: Tensor) -> Tensor:
    """Hinge loss of the discriminator with matching-aware negatives.

    Parameters
    ----------
    real, fake, wrong : Tensor of shape (n_rows,)
        Scores of real pictures and of generated ones under their condition, and of real ones
        under that of another row.
    differs : BoolTensor of shape (n_rows,)
        Whether that condition is another one; where it is not, the generated picture counts twice.

    Returns
    -------
    losses : Tensor of shape (n_rows,)
        Zero where real pictures score above 1 and all else below -1.
    """
    of_fake = relu(1 + fake)
    return relu(1 - real) + (of_fake + torch.where(differs, relu(1 + wrong), of_fake)) / 2


def _relative_spread(fake: Tensor, real: Tensor) -> Tensor:
    """Spread of a pixel over the pictures, mean over pixels, as a share of that of real ones."""
    own, usual = (pictures.std(dim=0, correction=0).mean() for pictures in (fake, real))
    # Real pictures that are all alike, such as a single one, ask for no spread.
    return torch.where(usual > 1e-3, own / usual, 1.0)


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Let gradients through a module, and none into it."""
    learning = [weight for weight in module.parameters() if weight.requires_grad]
    for weight in learning:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in learning:
            weight.requires_grad_(True)


def set_players(net: Any, learning_rate: float) -> None:
    """Give the discriminator a step size of its own, and both players no momentum.

    Parameters
    ----------
    net : JointNet
        Before its training.
    learning_rate : float
        Of the discriminator: two time-scale updates.
    """
    # One norm of both gradients would let the larger one shorten the other's step.
    net.max_grad_norm = None
    optimizer, players = net.optimizer_, net.module_.players()
    own, rest = {id(weight) for weight in players}, optimizer.param_groups[-1]
    rest["params"] = [weight for weight in rest["params"] if id(weight) not in own]
    optimizer.add_param_group({"params": players, "lr": learning_rate})
    for group in optimizer.param_groups:
        group["betas"] = _BETAS


class WatchGame(Callback):
    """Notes the losses of both players, and ends a game that one of them has lost for good.

    Parameters
    ----------
    patience : int
        Epochs in a row that say so.
    owner : str
        Class that trains, for messages.
    """

    def __init__(self, patience: int, owner: str):
        self.patience = patience
        self.owner = owner

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        """Begin the sums of an epoch."""
        self.sums_: dict[str, Tensor] = {}
        self.n_steps_ = 0

    def on_batch_end(self, net: Any, training: bool = False, **kwargs: Any) -> None:
        """Add up what a step says; nothing waits for a GPU here."""
        if training:
            self.n_steps_ += 1
            for name, value in net.module_.losses.items():
                self.sums_[name] = self.sums_.get(name, 0.0) + value

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Note the means, and look at the last epochs."""
        for name, total in self.sums_.items():
            net.history.record(name, float(total) / self.n_steps_)
        last = net.history[-self.patience :]
        if len(last) < self.patience:
            return
        if all(epoch["spread"] < _ALIKE for epoch in last):
            raise ConvergenceError(
                f"{self.owner}: the generator has drawn the same picture for every row in"
                f" {self.patience} epochs. Lower learning_rate, now {net.lr}, or take"
                " method='flow_matching', which plays no game."
            )
        if all(epoch["discriminator_loss"] < _SURE for epoch in last):
            raise ConvergenceError(
                f"{self.owner}: the discriminator has been sure of every picture in"
                f" {self.patience} epochs, so the generator learns nothing. Lower"
                " discriminator_learning_rate, give more rows, or take method='flow_matching'."
            )
