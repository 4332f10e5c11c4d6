"""Fail where a branch changes the package and says nothing about it in docs/changes.rst.

Usage: python .github/check_changelog.py BASE, with the commit that the branch starts from.
"""

import subprocess
import sys

CHANGELOG = "docs/changes.rst"


def missing_entry(changed: list[str]) -> bool:
    """Whether files of the package changed and the changelog did not."""
    return any(path.startswith("skmm/") for path in changed) and CHANGELOG not in changed


def main(base: str) -> None:
    """Compare the working copy with the point where it left ``base``."""
    command = ["git", "diff", "--name-only", f"{base}...HEAD"]
    changed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    if missing_entry(changed):
        sys.exit(
            f"Files in skmm/ changed, but {CHANGELOG} did not. Add an entry there, or set the"
            " label 'no changelog needed' on the pull request."
        )


if __name__ == "__main__":
    main(sys.argv[1])
