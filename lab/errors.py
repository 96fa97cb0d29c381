"""The exceptions that end a command with a sentence and no traceback."""


class InputError(Exception):
    """Bad input, said in one sentence: what was found, what was expected, what to do. The command exits with 2."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows instead of a traceback."""
        return [f"InputError: {self}"]


class Stopped(Exception):  # noqa: N818 (it is no error)
    """Training was asked to stop and has saved everything: no failure, the command exits with 0.

    `signal` is the number of the signal that asked.
    """

    def __init__(self, sentence: str, signal: int):
        super().__init__(sentence)
        self.signal = signal

    def __reduce__(self):
        return type(self), (str(self), self.signal)  # so that it can go from one process to another
