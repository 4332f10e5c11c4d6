"""Whether a folder lies on a network: there processes cannot share memory through a file."""

import os
import re
import sys
from pathlib import Path

__all__ = ["is_on_network"]

_MOUNTS = Path("/proc/self/mountinfo")
_NETWORK = {
    *("9p", "afs", "ceph", "cifs", "coda", "davfs", "glusterfs", "gpfs", "lustre", "ncpfs"),
    *("nfs", "nfs4", "ocfs2", "gfs2", "orangefs", "panfs", "pvfs2", "smb3", "smbfs", "wekafs"),
    # Folders of the host that several virtual machines may see.
    *("prl_fs", "vboxsf", "virtiofs", "vmhgfs", "beegfs", "quobyte"),
}
# Most file systems in user space are remote. Of an unknown one the worst is assumed: a store
# without shared memory is slower and never wrong.
_LOCAL_FUSE = {"fuse.fuse-overlayfs", "fuse.mergerfs", "fuse.bindfs", "fuse.ntfs-3g"}


def is_on_network(folder: Path) -> bool:
    """Whether ``folder``, which exists, may be seen by another machine too.

    Linux and Windows are asked; elsewhere the answer is False.
    """
    if sys.platform == "win32":
        return _is_remote_drive(folder)
    try:
        mounts = _MOUNTS.read_text(errors="surrogateescape")
    except OSError:
        return False
    kind = _kind_of(os.path.realpath(folder), mounts)
    if kind.startswith("fuse."):
        return kind not in _LOCAL_FUSE
    return kind in _NETWORK


def _kind_of(path: str, mounts: str) -> str:
    """Type of the file system that holds ``path``: that of the longest mount point above it."""
    found, longest = "", -1
    for line in mounts.splitlines():
        # number parent device root POINT options [tags] - TYPE source options
        before, _, after = line.partition(" - ")
        if len(before.split()) < 5 or not after:
            continue
        # A blank in the name is written as \040.
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), before.split()[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:  # of two at one point the later one is seen
            found, longest = after.split()[0], len(point)
    return found


def _is_remote_drive(folder: Path) -> bool:
    if sys.platform != "win32":
        return False
    import ctypes

    drive = folder.resolve().drive
    remote = 4  # DRIVE_REMOTE
    return drive.startswith("\\\\") or ctypes.windll.kernel32.GetDriveTypeW(drive + "\\") == remote
