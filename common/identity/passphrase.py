"""The passphrase that private keys on disk are encrypted under: one file, named by the configuration, never an argument.

passphrase = read_passphrase(config.identity.passphrase_file)      # None: the keys are not encrypted
key = SigningKey.load(layout.signing_key, passphrase)
"""

from __future__ import annotations

from pathlib import Path

from common.errors import InvalidConfiguration

MAX_PASSPHRASE_BYTES = 1024
_NOT_FOR_OTHERS = 0o027
"""Read by others, written by the group. Read by the group is let pass: it is what systemd's LoadCredential shows."""


def read_passphrase(path: Path | None) -> bytes | None:
    """The file's first line, without its end; None where no file is named.

    A file that others can read is refused and not only warned of: whoever turned encryption on would believe in it.

    Raises:
        InvalidConfiguration: no such file, others may read it, or it holds no passphrase.
    """
    if path is None:
        return None
    try:
        mode = path.stat().st_mode & 0o777
        content = path.read_bytes()
    except OSError as err:
        raise InvalidConfiguration(
            f"The passphrase file {path} cannot be read: {err.strerror}.",
            "Name a file that this account can read: identity.passphrase_file, or --passphrase-file.",
        ) from err
    if mode & _NOT_FOR_OTHERS:
        raise InvalidConfiguration(
            f"The passphrase file {path} has mode {mode:04o}, expected one that only its owner reads and writes.",
            f"chmod 600 {path}",
        )
    line = content.split(b"\n", 1)[0].rstrip(b"\r")
    if not 1 <= len(line) <= MAX_PASSPHRASE_BYTES:
        raise InvalidConfiguration(
            f"The first line of the passphrase file {path} has {len(line):,} bytes, "
            f"expected 1 to {MAX_PASSPHRASE_BYTES:,}.",
            "Write one line of text into it.",
        )
    return line
