"""Which instances of the public estimators a costly check runs on: one a class and engine."""

__all__ = ["engine_of", "first_of_each_class", "name_of", "one_of_each_engine"]


def engine_of(instance):
    """Return what makes an instance run other code than its class's first: the same, equal keys.

    Strategies, losses and rules that differ in a formula alone share an engine; the tests of their
    own packages and skmm's contract checks compare them.
    """
    return (
        getattr(instance, "needs_training", None),  # an encoder: a network to train, or none
        getattr(instance, "rule", None) == "stacking",  # late fusion: out-of-fold votes
        getattr(instance, "method", None),  # CCA: a solver, kernels or networks
    )


def first_of_each_class(candidates):
    """Return the first instance of each class."""
    return list({type(i): i for i in reversed(candidates)}.values())[::-1]


def one_of_each_engine(candidates):
    """Return the first instance of each class and engine."""
    return list({(type(i), str(engine_of(i))): i for i in reversed(candidates)}.values())[::-1]


def name_of(instance):
    """Return the class and what distinguishes the instance: ``JointFusionClassifier-gated``."""
    for parameter in ("model", "strategy", "rule", "scaling", "fine_tune", "loss", "method"):
        value = getattr(instance, parameter, None)
        if isinstance(value, str | bool):
            return f"{type(instance).__name__}-{value}"
    return type(instance).__name__
