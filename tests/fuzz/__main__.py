"""Coverage-guided fuzzing of every target, one after the other, each in a process of its own.

    python -m tests.fuzz                            # every target, FUZZ_SECONDS (60) each
    python -m tests.fuzz wire notes --seconds 600   # these two
    python -m tests.fuzz wire --input out/fuzz/wire/crash-…     # that one input, with its traceback

What is found lies in out/fuzz/NAME, with the corpus that grew; what was mended moves to tests/fuzz/found/NAME.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.fuzz.names import NAMES

OUT = Path("out/fuzz")
INSTRUMENTED = ["common", "coordinator"]
MEMORY_MEGABYTES = 2_048
TIMEOUT_SECONDS = 20
"""An input that takes longer is a finding."""
MISSING = (
    "error: atheris is not installed in this environment: the fuzzer\n"
    "  fix: {python} -m pip install -e '.[fuzz]'   (Linux on x86-64 or arm64, Python 3.11 to 3.13)"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Returns:
        0; 1 where a target found something; 2 where the fuzzer is missing.
    """
    options = parse_arguments(arguments)
    if importlib.util.find_spec("atheris") is None:
        print(MISSING.format(python=sys.executable), file=sys.stderr)
        return 2
    if options.child:
        return fuzz(options.targets[0], options.seconds, options.input)
    failed = [name for name in options.targets if not run(name, options)]
    print(f"found something: {', '.join(failed)}; the inputs lie in {OUT}" if failed else "nothing found")
    return 1 if failed else 0


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; none: all")
    seconds = int(os.environ.get("FUZZ_SECONDS", "60"))
    parser.add_argument("--seconds", type=int, default=seconds, help="for each target; default: FUZZ_SECONDS, or 60")
    parser.add_argument("--input", type=Path, help="only this input of one target")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if unknown := set(options.targets) - set(NAMES):
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    options.targets = options.targets or list(NAMES)
    return options


def run(name: str, options: argparse.Namespace) -> bool:
    """Whether a target, in its own process, found nothing."""
    print(f"{name}: {options.seconds} s", flush=True)
    command = [sys.executable, "-m", "tests.fuzz", name, "--child", "--seconds", str(options.seconds)]
    if options.input:
        command += ["--input", str(options.input)]
    return subprocess.run(command, check=False).returncode == 0


def fuzz(name: str, seconds: int, only: Path | None) -> int:
    """Hands this process to the fuzzer, which ends it."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
        harness = importlib.import_module("tests.fuzz.harness")
        target = harness.load(name)
    corpus = OUT / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for data in (*target.seeds, *harness.stored("found", name)):
        (corpus / hashlib.sha256(data).hexdigest()).write_bytes(data)
    settings = [
        f"-max_total_time={seconds}",
        f"-max_len={target.max_bytes}",
        f"-artifact_prefix={OUT / name}/",
        f"-rss_limit_mb={MEMORY_MEGABYTES}",
        f"-timeout={TIMEOUT_SECONDS}",
        f"-dict={dictionary(OUT / name, harness.TOKENS)}",
        "-len_control=0",
    ]

    def mutated(data: bytes, max_bytes: int, seed: int) -> bytes:
        dice = random.Random(seed)
        if dice.random() < 0.5:
            return bytes(harness.json_mutation(bytes(data), dice)[:max_bytes])
        return bytes(atheris.Mutate(data, max_bytes))

    def once(data: bytes) -> None:
        harness.attempt(target, bytes(data))

    own = {"custom_mutator": mutated} if target.is_json else {}
    atheris.Setup([sys.argv[0], *settings, str(only or corpus)], once, **own)
    atheris.Fuzz()
    return 0


def dictionary(folder: Path, tokens: Sequence[bytes]) -> Path:
    """Pieces that parsers stumble over, in libFuzzer's form."""
    path = folder / "tokens.dict"
    lines = ('"' + "".join(f"\\x{byte:02x}" for byte in token) + '"' for token in tokens)
    path.write_text("\n".join(lines) + "\n")
    return path


if __name__ == "__main__":
    sys.exit(main())
