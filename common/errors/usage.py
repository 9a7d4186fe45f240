"""What a person typed or wrote is not as it must be."""

from __future__ import annotations

from common.errors.base import LLMasOSError, Status


class UsageError(LLMasOSError):
    """A command, a file or a field is not as it must be."""

    code = "usage"
    status = Status.INVALID_ARGUMENT
    exit_code = 2
    default_fix = "See --help."


class InvalidConfiguration(UsageError):
    """A configuration file or plan breaks its schema; the message names file, line, field and what was expected."""

    code = "invalid-configuration"
    default_fix = "Correct the named field; `llmasos plan schema` prints what a plan may hold."


class InvalidName(UsageError):
    """A name is not lower-case letters, digits and hyphens."""

    code = "invalid-name"
    default_fix = "Use 1 to 63 lower-case letters, digits and hyphens, starting with a letter."


class NotInitialised(UsageError):
    """A home folder holds no coordinator or participant."""

    code = "not-initialised"
    default_fix = "Run `llmasos-coordinator init` or `llmasos-participant join` first, or name the right --home."


class AlreadyInitialised(UsageError):
    """A home folder already holds one."""

    code = "already-initialised"
    default_fix = "Name another --home, or remove the old folder if nothing in it is needed any more."


class MalformedBackup(UsageError):
    """A file that is no backup, of another side, or damaged."""

    code = "malformed-backup"
    default_fix = "Name a file that `backup` wrote; of a damaged one, use an older."


class NotRecovered(UsageError):
    """A restored coordinator that does not know yet what it signed since the backup."""

    code = "not-recovered"
    default_fix = "Let it read what institutions hold: llmasos-coordinator recover --from FILE."


class TooLittleData(UsageError):
    """A folder of text holds less than training needs."""

    code = "too-little-data"
    default_fix = "Name a folder with more text; .txt, .md, .py, .jsonl and .csv files are read."


class UnreadableData(UsageError):
    """A file of text is not in the form that its ending says; the message names file and line, never the text."""

    code = "unreadable-data"
    default_fix = (
        "Correct or remove the named file; .jsonl holds one JSON object a line, .csv a header with column names."
    )


class UnknownObject(UsageError):
    """A run, blob, institution or plan of that name does not exist, or the prefix is not unique."""

    code = "unknown-object"
    status = Status.NOT_FOUND
    default_fix = "List what exists with `run list`, `institution list` or `plan list`."


class WrongPassphrase(UsageError):
    """A private key is encrypted, and the passphrase is absent or another one."""

    code = "wrong-passphrase"
    default_fix = "Name the file that holds it: identity.passphrase_file in the configuration, or --passphrase-file."


class DataInUse(UsageError):
    """Token files cannot be removed while a worker trains on them."""

    code = "data-in-use"
    default_fix = "Pause first (llmasos-participant pause --now), or wait until the round is over."


class MissingExtra(UsageError):
    """A command needs packages that are not installed."""

    code = "missing-extra"
    default_fix = "Install them: pip install 'llmasos[train]'."
