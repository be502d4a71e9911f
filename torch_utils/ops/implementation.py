"""Which implementation of an operator does `impl=` ask for?"""

from __future__ import annotations

__all__ = ["check_impl"]


def check_impl(op: str, impl: str) -> None:
    """Accept "auto" and "ref"; refuse everything else.

    Raises:
        NotImplementedError: `impl="cuda"`, which this version does not have.
        ValueError: any other word.
    """
    if impl == "cuda":
        raise NotImplementedError(
            f"{op}: impl='cuda' was asked for, but the CUDA kernels are not part of this version; "
            "use impl='auto' or impl='ref', which run on the GPU through plain torch."
        )
    if impl not in ("auto", "ref"):
        raise ValueError(f"{op}: impl='{impl}' is unknown; expected 'auto', 'ref' or 'cuda'.")
