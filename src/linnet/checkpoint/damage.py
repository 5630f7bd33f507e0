"""The error that means: these bytes are not what was written."""

from linnet.errors import UserError


class DamagedCheckpoint(UserError):  # noqa: N818 - it is the checkpoint that is damaged
    """A checkpoint whose bytes are not what was written; the sentence names the file and what is wrong with it."""
