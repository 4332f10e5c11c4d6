"""Checks of the arguments that the functions of this folder share."""

from numbers import Integral, Real

__all__ = ["check_choice", "check_integer", "check_real"]


def check_integer(
    function: str, name: str, value: object, low: int, high: int | None = None
) -> int:
    """An integer in a closed range, or an error that names the function and the parameter."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(
            f"{function}: {name} must be an integer, got {value!r} ({type(value).__name__})."
        )
    number = int(value)
    if number < low or (high is not None and number > high):
        upper = "" if high is None else f" and at most {high}"
        raise ValueError(f"{function}: {name} must be at least {low}{upper}, got {number}.")
    return number


def check_real(
    function: str, name: str, value: object, low: float, high: float | None = None
) -> float:
    """A real number in a closed range, or an error that names the function and the parameter."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"{function}: {name} must be a number, got {value!r} ({type(value).__name__})."
        )
    number = float(value)
    # Written so that NaN fails too.
    if not (number >= low and (high is None or number <= high)) or number == float("inf"):
        range_ = f"at least {low:g}" if high is None else f"between {low:g} and {high:g}"
        raise ValueError(f"{function}: {name} must be {range_}, got {value}.")
    return number


def check_choice(function: str, name: str, value: object, choices: tuple[str, ...]) -> str:
    """One of some words, or an error that lists them."""
    if not isinstance(value, str) or value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{function}: {name} must be one of {listed}, got {value!r}.")
    return value
