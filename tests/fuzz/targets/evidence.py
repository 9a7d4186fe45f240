"""Evidence bundles, under the digest that their bytes have: read, written again, and verified to a report.

What is read is written as the very same bytes; whatever is in it, verification ends with a report.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from common.errors import MalformedStatement
from common.evidence.read import read_bundle
from tests.fuzz.harness import Target, stored
from tests.support.evidence import bundle, report_on, with_digest


def entry(data: bytes) -> None:
    whole = with_digest(data)
    with tempfile.NamedTemporaryFile(suffix=".evidence") as file:
        file.write(whole)
        file.flush()
        path = Path(file.name)
        try:
            found = read_bundle(path)
        except MalformedStatement:
            assert report_on(path).checks
            raise
        with found:
            assert bundle(found.contents()) == whole
        report_on(path)


TARGET = Target(entry, stored("seeds", "evidence"))
