"""The one exception that means "the user can mend this"."""


class InputError(Exception):
    """Bad input, said in one sentence: what was found, what was expected, what to do. The command exits with 2."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows instead of a traceback."""
        return [f"InputError: {self}"]
