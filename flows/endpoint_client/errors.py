"""What an endpoint does to us, in words; `what` is the same without its address, for a sentence of one's own."""

from __future__ import annotations

from flows.errors import FinetuneError, TransientError


class RefusedError(FinetuneError):
    """The endpoint answers and will not do it, and asking again changes nothing: wrong key, model, URL or request."""

    def __init__(self, base_url: str, what: str) -> None:
        self.what = what
        super().__init__(f"The endpoint at {base_url} {what}.")


class NoAnswerError(TransientError):
    """The endpoint gives no answer now: nobody there, overloaded, too slow. A later try may be answered."""

    def __init__(self, base_url: str, what: str) -> None:
        self.what = what
        super().__init__(f"The endpoint at {base_url} {what}.")
