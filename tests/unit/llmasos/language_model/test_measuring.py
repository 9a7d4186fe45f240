"""An evaluation's numbers are what their names say."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from common.plan.tasks import CausalLM  # noqa: E402
from llmasos.datasets import Dataset  # noqa: E402
from llmasos.datasets.splitting import recipe_plan  # noqa: E402
from llmasos.datasets.tokens import TokenFile  # noqa: E402
from llmasos.models import GPT  # noqa: E402
from llmasos.optimizers import Adam  # noqa: E402

pytestmark = pytest.mark.torch


def test_an_evaluation_is_what_a_plain_loop_over_the_windows_finds(data: Dataset, tiny: GPT) -> None:
    tiny.fit(data.train, Adam(lr=1e-2), steps=30)
    found = tiny.evaluate(data.validation, batch_size=3)
    split, nats, correct, total = data.validation, 0.0, 0, 0
    file = TokenFile.open(split._encoded(recipe_plan(CausalLM()))[0])
    for start in range(0, split.num_tokens - 1, 16):
        ids = torch.from_numpy(file.read(start, min(17, split.num_tokens - start)))
        with torch.no_grad():
            logits = tiny.module(input_ids=ids[None, :-1]).logits[0]
        nats += float(torch.nn.functional.cross_entropy(logits, ids[1:], reduction="sum"))
        correct += int((logits.argmax(-1) == ids[1:]).sum())
        total += len(ids) - 1
    file.close()
    assert found.tokens == total == split.num_tokens - 1
    assert found.loss == pytest.approx(nats / total, abs=1e-4)
    assert found.perplexity == pytest.approx(math.exp(nats / total), rel=1e-3)
    text_bytes = sum(len(document.content.encode()) for document in split)
    assert found.bits_per_byte == pytest.approx(nats / total * split.num_tokens / math.log(2) / text_bytes, rel=1e-4)
    assert found.accuracy == correct / total > 0
    assert found.tokens_per_second == pytest.approx(total / found.seconds)


def test_an_evaluation_is_a_dict_and_a_table_too(data: Dataset, tiny: GPT) -> None:
    tiny.fit(data.train, steps=1)
    found = tiny.evaluate(data.test)
    assert list(found.to_dict()) == [
        "split", "loss", "perplexity", "bits_per_byte", "accuracy", "tokens", "seconds", "tokens_per_second",
    ]  # fmt: skip
    assert "<td>test</td>" in found._repr_html_()
    assert not tiny.module.training, "a measured model stays in evaluation mode"
