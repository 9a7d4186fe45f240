"""A small corpus, and models that learn it in a second."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from llmasos.datasets import Dataset, load_dataset  # noqa: E402
from llmasos.models import GPT  # noqa: E402
from llmasos.tokenizers import train  # noqa: E402
from tests.support.texts import make_institutions  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_institutions(tmp_path_factory.mktemp("corpus"), count=1, documents=12)["clinic"]


@pytest.fixture(scope="session")
def data(folder: Path) -> Dataset:
    return load_dataset(folder, tokenizer=train(folder, vocab_size=300))


@pytest.fixture
def tiny() -> GPT:
    return GPT(n_layer=2, n_head=2, n_embd=16, n_positions=16)
