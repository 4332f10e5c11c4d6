"""Python processes that tests start, with this folder on their path."""

import subprocess
import sys
import textwrap
from pathlib import Path

_HERE = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})"


def command(*codes, arguments=()):
    """Return the command of a process that runs the codes, with warnings as errors."""
    code = "\n".join([_HERE, *map(textwrap.dedent, codes)])
    return [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]


def run(*codes, arguments=(), **options):
    """Run the codes in a process and return what it printed."""
    done = subprocess.run(
        command(*codes, arguments=arguments),
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def start(*codes, arguments=(), **options):
    """Start a process that runs the codes."""
    return subprocess.Popen(
        command(*codes, arguments=arguments), stdout=subprocess.PIPE, text=True, **options
    )
