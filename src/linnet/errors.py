"""The one exception that means: the person using linnet can mend this."""


class UserError(ValueError):
    """A mistake in the input, told in one sentence: what is wrong, where, and what to do.

    The command line prints the sentence and exits with code 2. Anything else that escapes is a defect of ours.
    """
