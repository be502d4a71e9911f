"""Failures of the machine (disk, permission, memory) in one line, with what helps."""

from __future__ import annotations

import errno
from collections.abc import Iterable

import torch

__all__ = ["explained"]

_NO_ROOM = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
_NO_ACCESS = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_SUCH = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ESTALE, errno.EIO}
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "cannot allocate memory")
_SMALLER = ("--batch-gpu", "--batch", "--cbase", "--resolution", "--samples")  # flags that save memory, the best first


def explained(error: BaseException, flags: Iterable[str]) -> str:
    """The line; "" for an error of another kind.

    Args:
        error: that ended the program.
        flags: that it takes.
    """
    known = set(flags)
    resume = "; --resume=latest continues if the run has saved before" if "--resume" in known else ""
    if isinstance(error, OSError) and error.errno in _NO_SUCH and error.filename is not None:
        return f"'{error.filename}' cannot be read or written ({error.strerror}); was it moved or deleted, or replaced?"
    if isinstance(error, OSError) and error.errno in _NO_ROOM | _NO_ACCESS:
        file = "a file" if error.filename is None else f"'{error.filename}'"
        where = "give another --outdir" if "--outdir" in known else "write elsewhere"
        what = "make room, or" if error.errno in _NO_ROOM else "allow writing there, or"
        return (
            f"{file} could not be written ({error.strerror}); {what} {where} (of caches: set KD_CACHE). Files that "
            f"were written before are whole{resume}"
        )
    of_gpu = isinstance(error, torch.OutOfMemoryError)
    text = str(error).lower()
    if of_gpu or isinstance(error, MemoryError) or any(sign in text for sign in _NO_MEMORY):
        smaller = [flag for flag in _SMALLER if flag in known]
        return (
            f"not enough memory{' on the GPU' if of_gpu else ''}"
            + (f"; try a smaller {', '.join(smaller[:3])}" if smaller else "; close other programs")
            + (", or a larger --num-fp16-res" if of_gpu and "--num-fp16-res" in known else "")
            + resume
        )
    return ""
