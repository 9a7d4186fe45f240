"""`plan prepare`: everything of a run that needs torch, made once and pinned by digest.

    plan.yaml ──► draft.json          the plan statement to be: run id, plan, tensor manifest, blob references; canonical JSON
                  model.safetensors   initial weights, the model blob's very bytes
                  tokenizer.json      the tokenizer blob's very bytes
                  plan.yaml           the plan as it was written, for people

The coordinator has no torch: it takes the folder as it is, and checks bytes against digests.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from common import strict_json
from common.blobs.digest import leaf, root_of
from common.blobs.reference import CHUNK_BYTES, BlobRef, DigestName
from common.errors import (
    AlreadyInitialised,
    BadBlobReference,
    InvalidConfiguration,
    NotInitialised,
    StorageFailure,
    TooLittleData,
)
from common.plan.load import load_plan
from common.plan.model import Plan
from common.plan.tokenizers import BpeTokenizer, BytesTokenizer, GivenTokenizer
from common.statements.kinds import InitialBlobs, PlanStatement
from common.statements.versions import SPOKEN
from llmasos.atomic import BY_UMASK, replacing
from llmasos.datasets.text import read_documents
from llmasos.extras import require_train
from llmasos.tokenizers import bytes_tokenizer, load, save, train_bpe
from llmasos.tokenizers.special import add_special, check_special, frame

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

DRAFT, MODEL, TOKENIZER, PLAN = "draft.json", "model.safetensors", "tokenizer.json", "plan.yaml"
MAX_DRAFT_BYTES = 1024 * 1024
_REPAIR = "Prepare the plan again: llmasos plan prepare PLAN.yaml --out DIR."


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared run: the draft of its plan statement, and the folder that holds what the draft refers to."""

    draft: PlanStatement
    folder: Path

    @property
    def model(self) -> Path:
        """The file of initial weights, in the wire's layout."""
        return self.folder / MODEL

    @property
    def tokenizer(self) -> Path:
        """The tokenizer.json."""
        return self.folder / TOKENIZER


def random_suffix() -> str:
    """Six hexadecimal digits that tell runs of one plan apart."""
    return secrets.token_hex(3)


def prepare(
    plan_file: Path, out: Path, *, suffix: Callable[[], str] = random_suffix, algorithm: DigestName = "blake3"
) -> Prepared:
    """Make initial weights, tokenizer and draft of the plan in `plan_file`, in the new folder `out`.

    The same plan, text and `suffix` give the same bytes. The folder appears whole or not at all.

    Args:
        suffix: ends the run's id, which is the plan's name, cut at 50 characters, a hyphen and this.
        algorithm: the blob digest that the consortium's genesis fixes.

    Raises:
        InvalidConfiguration: the plan breaks its schema.
        AlreadyInitialised: `out` exists and is not an empty folder.
        MissingExtra: torch, transformers or tokenizers are not installed.
        UsageError, TooLittleData, StorageFailure: the tokenizer's text or file, the model's folder, or `out`, cannot be used.
    """
    plan = load_plan(plan_file)
    require_train("torch", "transformers", "tokenizers", task="prepare a plan")
    _refuse_taken(out)
    tokenizer = _tokenizer(plan, plan_file.resolve().parent)
    model = _initial_model(plan, tokenizer, plan_file.resolve().parent)
    run = f"{plan.name[:50].rstrip('-')}-{suffix()}"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
            folder = Path(temporary) / "prepared"
            folder.mkdir()
            draft = _fill(folder, (run, plan), tokenizer, model, algorithm)
            shutil.copyfile(plan_file, folder / PLAN)
            folder.rename(out)
    except OSError as err:
        raise StorageFailure(f"{out} could not be written: {err.strerror or err}.") from err
    return Prepared(draft, out)


def load_prepared(folder: Path) -> Prepared:
    """A prepared run whose files are what its draft says.

    Raises:
        NotInitialised: the folder holds no draft.
        InvalidConfiguration: the draft is not a plan statement.
        BadBlobReference: model or tokenizer differ from the draft's references.
        StorageFailure: a file cannot be read.
    """
    path = folder / DRAFT
    if not path.is_file():
        raise NotInitialised(f"{folder} holds no {DRAFT}, so it is not a prepared run.", _REPAIR)
    try:
        value = strict_json.loads(path.read_bytes(), max_bytes=MAX_DRAFT_BYTES)
        draft = strict_json.validate(PlanStatement, value)
    except OSError as err:
        raise StorageFailure(f"{path} could not be read: {err.strerror or err}.") from err
    except strict_json.StrictJsonError as err:
        raise InvalidConfiguration(f"{path} is not a draft of a plan statement: {err}", _REPAIR) from err
    for name, expected in ((MODEL, draft.initial.model), (TOKENIZER, draft.initial.tokenizer)):
        found = file_reference(folder / name, expected.algorithm)
        if found != expected:
            raise BadBlobReference(f"{folder / name} is {found}, the draft says {expected}.", _REPAIR)
    return Prepared(draft, folder)


def file_reference(path: Path, algorithm: DigestName) -> BlobRef:
    """The blob reference of a file, read chunk by chunk.

    Raises:
        StorageFailure: the file cannot be read.
    """
    buffer = memoryview(bytearray(CHUNK_BYTES))
    leaves: list[bytes] = []
    size = 0
    try:
        with path.open("rb") as file:
            while count := file.readinto(buffer):
                leaves.append(leaf(algorithm, buffer[:count]))
                size += count
    except OSError as err:
        raise StorageFailure(f"{path} could not be read: {err.strerror or err}.") from err
    return BlobRef(algorithm=algorithm, size=size, root=root_of(algorithm, leaves).hex())


def _refuse_taken(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise AlreadyInitialised(
            f"{out} exists already and is not an empty folder.", "Name another --out, or remove it if it is not needed."
        )


def _tokenizer(plan: Plan, beside: Path) -> Tokenizer:
    """The plan's tokenizer with the special tokens that its task needs; paths in the plan are relative to the plan file's
    folder `beside`."""
    needed = plan.task.special_tokens
    if isinstance(plan.tokenizer, GivenTokenizer):
        path = beside / plan.tokenizer.path
        tokenizer = load(path)
        check_special(tokenizer, needed, where=str(path), task=plan.task.type)
        return tokenizer
    tokenizer = _made_tokenizer(plan.tokenizer, beside)
    add_special(tokenizer, needed)
    frame(tokenizer, plan.task)
    return tokenizer


def _made_tokenizer(section: BytesTokenizer | BpeTokenizer, beside: Path) -> Tokenizer:
    match section:
        case BytesTokenizer():
            return bytes_tokenizer()
        case BpeTokenizer(vocab_size=vocab_size, text=text):
            place = beside / text
            try:
                return train_bpe((document.text for document in read_documents(place)), vocab_size)
            except TooLittleData as err:
                raise TooLittleData(
                    f"{place}, which tokenizer.text names, holds no text to train a tokenizer on."
                ) from err


def _initial_model(plan: Plan, tokenizer: Tokenizer, beside: Path) -> torch.nn.Module:
    """The model that training starts from: random weights, or those of the folder that the plan names."""
    from llmasos.models.build import model_of
    from llmasos.models.pretrained import fill_from_folder

    model = model_of(plan, tokenizer)
    if plan.model.weights is not None:
        fill_from_folder(model, plan.model, beside / plan.model.weights)
    return model


def _fill(
    folder: Path, named: tuple[str, Plan], tokenizer: Tokenizer, model: torch.nn.Module, algorithm: DigestName
) -> PlanStatement:
    """Write model, tokenizer and draft of the run with that id and plan."""
    from llmasos.models.manifest import manifest_of
    from llmasos.models.personal import check_personal
    from llmasos.models.tensors import write_tensors

    run, plan = named
    save(tokenizer, folder / TOKENIZER)
    manifest = manifest_of(model, plan.is_personal)
    check_personal(plan, manifest)
    write_tensors(model, folder / MODEL, manifest, mode=BY_UMASK)
    draft = PlanStatement(
        run=run,
        plan=plan,
        manifest=manifest,
        initial=InitialBlobs(
            model=file_reference(folder / MODEL, algorithm), tokenizer=file_reference(folder / TOKENIZER, algorithm)
        ),
        protocol_versions=SPOKEN,
    )
    with replacing(folder / DRAFT, mode=BY_UMASK) as file:
        file.write(strict_json.dumps(draft.model_dump(mode="json")))
    return draft
