"""The documents hold together: links, cited sections, decisions, and the program that the protocol page prints."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from blake3 import blake3

from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.blobs.store import FolderBlobStore
from common.codecs import CODECS
from common.codecs.topk import TopkCodec
from common.plan.model import Plan
from common.plan.server_optimizers import ServerSGD
from common.reduce.inspect import inspect_delta
from common.reduce.round import ReduceJob, WeightedDelta, reduce_round
from common.reduce.scalar import tree_sum
from common.statements.kinds import Kind, Tensor
from common.tensors import model_header, trainable_header
from tests.support.encoded import encoded_blob

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = {".venv", ".git", "out", "dist", "build", "node_modules"}
MAX_COLUMNS = 120

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6}\s+(.*)$")
ANCHOR = re.compile(r"<a (?:id|name)=\"([^\"]+)\"")
CITATION = re.compile(r"\bdocs/[A-Za-z0-9_./-]+\.md(?:#[A-Za-z0-9_-]+)?")
DECISION_SECTIONS = ["Status", "Context", "Decision", "Consequences", "Would change it"]


def tracked(*suffixes: str) -> list[Path]:
    """Files of the repository with these suffixes, generated folders left out."""
    found = (path for path in ROOT.rglob("*") if path.suffix in suffixes and path.is_file())
    return sorted(path for path in found if not SKIPPED & set(path.relative_to(ROOT).parts))


DOCUMENTS = tracked(".md")
PAGES = ("glossary", "operations", "protocol", "sdk", "security", "tour")
WRAPPED = sorted(
    [ROOT / "README.md", ROOT / "README.zh-CN.md"]
    + [ROOT / "docs" / f"{name}.md" for name in PAGES]
    + list((ROOT / "docs" / "adr").glob("*.md"))
)
"""Documents that are wrapped by hand."""


def prose(document: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines outside fenced blocks."""
    fenced = False
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), start=1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, line


def anchors(document: Path) -> set[str]:
    """Anchors as GitHub makes them: lower case, punctuation dropped, spaces to hyphens, repeated ones numbered."""
    found: set[str] = set()
    for _, line in prose(document):
        found.update(ANCHOR.findall(line))
        heading = HEADING.match(line)
        if heading:
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).replace("`", "")
            slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
            repeats = sum(1 for other in found if re.fullmatch(re.escape(slug) + r"(-\d+)?", other))
            found.add(f"{slug}-{repeats}" if slug in found else slug)
    return found


def fenced_blocks(document: Path, language: str) -> list[str]:
    text = document.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def broken(target: str, base: Path) -> str | None:
    """What is wrong with a link, or None."""
    path, _, anchor = target.partition("#")
    document = (base.parent / path).resolve() if path else base
    if not document.exists():
        return f"{target}: no such file"
    if anchor and document.suffix == ".md" and anchor not in anchors(document):
        return f"{target}: no such section"
    return None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_to_files_and_sections_that_exist(document: Path) -> None:
    links = [(number, link) for number, line in prose(document) for link in LINK.findall(line)]
    local = [(number, link) for number, link in links if not re.match(r"[a-z][a-z0-9+.-]*:", link)]
    assert [f"line {number}: {fault}" for number, link in local if (fault := broken(link, document))] == []


@pytest.mark.parametrize("document", WRAPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_prose_is_not_wrapped_beyond_120_columns(document: Path) -> None:
    long = [number for number, line in prose(document) if len(line) > MAX_COLUMNS and not line.startswith("|")]
    assert long == []


def test_every_section_that_code_cites_exists() -> None:
    faults = [
        f"{path.relative_to(ROOT)}: {fault}"
        for path in tracked(".py", ".proto", ".yaml", ".toml")
        if path != Path(__file__).resolve()
        for citation in CITATION.findall(path.read_text(encoding="utf-8"))
        if (fault := broken(citation, ROOT / "README.md"))
    ]
    assert faults == []


def test_a_missing_section_is_noticed() -> None:
    assert broken("docs/protocol.md#arithmetic", ROOT / "README.md") is None
    assert broken("docs/protocol.md#no-such", ROOT / "README.md") == "docs/protocol.md#no-such: no such section"
    assert broken("docs/no-such.md", ROOT / "README.md") == "docs/no-such.md: no such file"


def test_the_index_of_decisions_lists_every_decision_once() -> None:
    folder = ROOT / "docs" / "adr"
    index = (folder / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\d{4})\]\((\d{4}-[a-z0-9-]+\.md)\) \| (.+?) \| (\w+) \|$", index, flags=re.MULTILINE)
    files = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert [name for _, name, _, _ in rows] == files
    assert [number for number, _, _, _ in rows] == [f"{position:04d}" for position in range(1, len(files) + 1)]


def test_every_decision_has_the_sections_that_the_index_promises() -> None:
    for path in sorted((ROOT / "docs" / "adr").glob("[0-9]*.md")):
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# {path.name[:4]}: "), path.name
        assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE) == DECISION_SECTIONS, path.name


def test_every_kind_of_statement_has_a_row_in_the_protocol() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    assert [kind for kind in Kind if f"| `{kind.value}` |" not in text] == []


def test_both_readmes_print_the_same_commands_and_the_same_plan() -> None:
    english, chinese = ROOT / "README.md", ROOT / "README.zh-CN.md"
    for language in ("yaml", "python"):
        assert fenced_blocks(english, language) == fenced_blocks(chinese, language)
    commands = [
        [re.sub(r"\s+#.*", "", line) for block in fenced_blocks(document, "sh") for line in block.splitlines()]
        for document in (english, chinese)
    ]
    assert commands[0] == commands[1]


def test_the_plan_in_the_readme_is_a_plan() -> None:
    (block,) = fenced_blocks(ROOT / "README.md", "yaml")
    plan = Plan.model_validate(yaml.safe_load(block))
    assert (plan.name, plan.quorum, plan.stop.patience_rounds) == ("small", 3, 3)


# --- the recomputation that the protocol page prints ------------------------------------------------------------------------

MANIFEST = (
    Tensor(name="wte.weight", shape=(1200, 1000)),
    Tensor(name="scale", shape=()),
    Tensor(name="mask", shape=(3, 5), group="frozen"),
    Tensor(name="own", shape=(7,), group="personal"),
)
WEIGHTS = {"north": 2**29 - 1, "east": 17, "south": 4096}


@pytest.fixture(scope="module")
def printed() -> dict[str, Any]:
    """What the program in docs/protocol.md defines, run as a stranger would run it."""
    text = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    section = text.partition("<!-- recompute:begin -->")[2].partition("<!-- recompute:end -->")[0]
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)[0], names)
    return names


def numbers(count: int, seed: int) -> bytes:
    """float32 values over many magnitudes, both signs, zeros and subnormal ones among them."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(count) * 10.0 ** rng.integers(-44, 2, count)
    values[::97] = 0.0
    return values.astype("<f4").tobytes()


def plain_manifest() -> list[dict[str, Any]]:
    return [tensor.model_dump(mode="json") for tensor in MANIFEST]


def make_delta(seed: int, codec: str = "float32") -> bytes:
    return encoded_blob(codec, MANIFEST, np.frombuffer(numbers(1_200_001, seed), "<f4"))


def store_blob(store: FolderBlobStore, content: bytes) -> BlobRef:
    with store.writer("blake3") as writer:
        writer.write(content)
        return writer.commit()


def test_the_printed_program_writes_the_headers_of_models_and_deltas(printed: dict[str, Any]) -> None:
    manifest = plain_manifest()
    assert printed["header"](manifest[:2]) == trainable_header(MANIFEST)
    assert printed["header"](manifest[:3]) == model_header(MANIFEST)


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 5 * CHUNK_BYTES + 3])
def test_the_printed_program_names_blobs_by_the_same_root(printed: dict[str, Any], size: int, tmp_path: Path) -> None:
    content = bytes(range(251)) * (size // 251 + 1)
    ref = store_blob(FolderBlobStore(tmp_path), content[:size])
    assert printed["blob_root"](content[:size], blake3) == ref.root


@pytest.mark.parametrize("count", [0, 1, 65_535, 65_536, 65_537, 5 * 65_536 + 11])
def test_the_printed_program_sums_by_the_same_tree(printed: dict[str, Any], count: int) -> None:
    values = np.frombuffer(numbers(count, 7), "<f4").astype(np.float64)
    assert float(printed["tree_sum"](values)) == tree_sum(values)


@pytest.mark.parametrize("codec", CODECS)
def test_the_printed_program_writes_the_headers_of_deltas_of_every_codec(printed: dict[str, Any], codec: str) -> None:
    for elements in (1, 120, 121, 1_200_001):
        manifest = (Tensor(name="w", shape=(elements,)),)
        plain = [tensor.model_dump(mode="json") for tensor in manifest]
        assert printed["delta_header"](plain, codec) == CODECS[codec].header(manifest)


@pytest.mark.parametrize("fraction", ["0.001", "0.0237", "0.1", "0.5"])
def test_the_printed_program_reads_whatever_share_is_kept(printed: dict[str, Any], fraction: str) -> None:
    manifest, codec = (Tensor(name="w", shape=(300_001,)),), TopkCodec(Decimal(fraction))
    values = np.random.default_rng(1).standard_normal(300_001).astype(np.float32)
    delta = codec.header(manifest) + bytes(encoded := codec.encode(values))
    plain = [tensor.model_dump(mode="json") for tensor in manifest]
    expected = codec.decode(encoded, np.empty(codec.elements(len(encoded)), np.float32))[:300_001]
    assert printed["delta_header"](plain, "topk", fraction) == codec.header(manifest)
    assert printed["numbers"](delta, plain, "topk", fraction).tobytes() == expected.tobytes()


@pytest.mark.parametrize("codec", CODECS)
def test_the_printed_program_measures_the_same_norm(printed: dict[str, Any], codec: str, tmp_path: Path) -> None:
    store, content = FolderBlobStore(tmp_path), make_delta(3, codec)
    with store.open(store_blob(store, content)) as reader:
        facts = inspect_delta(reader, trainable_header(MANIFEST), max_l2=1e9, codec=CODECS[codec])
    assert float(printed["l2"](content, plain_manifest()[:2], codec)) == facts.l2


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("learning_rate", ["1", "0.7"])
def test_the_printed_program_gives_the_reducers_model_in_every_bit(
    printed: dict[str, Any], learning_rate: str, codec: str, tmp_path: Path
) -> None:
    store = FolderBlobStore(tmp_path)
    base = model_header(MANIFEST) + numbers(1_200_016, 1)
    deltas = {name: make_delta(seed, codec) for seed, name in enumerate(WEIGHTS, start=2)}
    made = bytearray()
    with ExitStack() as stack:
        job = ReduceJob(
            plan=Plan(
                apiVersion="llmasos/v1",
                name="printed",
                codec={"type": codec},
                server_optimizer=ServerSGD(learning_rate=Decimal(learning_rate)),
            ),
            manifest=MANIFEST,
            base=stack.enter_context(store.open(store_blob(store, base))),
            deltas=[
                WeightedDelta(name, WEIGHTS[name], stack.enter_context(store.open(store_blob(store, delta))))
                for name, delta in deltas.items()
            ],
        )
        reduce_round(job, made.extend)
    contributions = {name: (WEIGHTS[name], delta) for name, delta in deltas.items()}
    expected = printed["new_model"](base, contributions, plain_manifest(), learning_rate, codec)
    assert hashlib.sha256(made).hexdigest() == hashlib.sha256(expected).hexdigest()
