"""The order of the examples in the gallery."""


class QuickstartFirst:
    """Sort key of sphinx-gallery: the quickstart, then the others by name."""

    def __init__(self, folder: str):
        pass

    def __call__(self, filename: str) -> tuple[bool, str]:
        """Return the key of one file."""
        return filename != "plot_quickstart.py", filename
