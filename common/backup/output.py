"""What both daemons' commands say of a backup."""

from __future__ import annotations

from pathlib import Path

from common.backup.archive import Manifest
from common.terminal import Terminal


def put_out_backup(terminal: Terminal, file: Path, manifest: Manifest) -> None:
    size = file.stat().st_size
    lines = [
        f"Backup: {file}  {size:,} bytes, {len(manifest.files):,} files, {manifest.entries:,} ledger entries",
        "PRIVATE KEYS ARE IN IT, as they lie in the home; only its owner may read it (mode 0600).",
    ]
    data = _data(manifest) | {"file": str(file), "bytes": size}
    terminal.result("\n".join(lines), data=data, quiet=str(file))


def put_out_restored(terminal: Terminal, home: Path, manifest: Manifest, following: str) -> None:
    lines = [
        f"Restored: {home}, the {manifest.side} {manifest.name} as of {manifest.made_at}, {manifest.entries:,} ledger entries",
        following,
    ]
    terminal.result("\n".join(lines), data=_data(manifest) | {"home": str(home)}, quiet=str(home))


def _data(manifest: Manifest) -> dict[str, object]:
    return manifest.model_dump(exclude={"files"}) | {"files": len(manifest.files)}
