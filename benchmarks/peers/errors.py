"""Why a system has no figures."""


class PeerFailure(Exception):
    """It could not be installed, broke, or was ended at a limit. The message is the cause, as the table shows it."""
