"""What a token does not see has no influence on what is computed for it: in training, with a cache, and after an export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

torch = pytest.importorskip("torch")

from common.errors import UsageError  # noqa: E402
from common.plan.architectures import GPT2, Llama, Mistral, Model, Qwen2, Qwen3  # noqa: E402
from common.plan.pretrained import section_of  # noqa: E402
from llmasos.generation import generate_text, load_module  # noqa: E402
from llmasos.models.build import build_model, export_hf  # noqa: E402
from llmasos.models.pretrained import fill_from_folder  # noqa: E402
from llmasos.tokenizers import bytes_tokenizer, save  # noqa: E402
from tests.unit.llmasos.models.test_architectures import ROTARY  # noqa: E402

pytestmark = pytest.mark.torch

ONE_LAYER = ROTARY | {"num_hidden_layers": 1}
WINDOW = {"type": "sliding-window", "window": 4}
SPARSE = {"type": "block-sparse", "block": 3, "local_blocks": 2, "global_blocks": 1}
LENGTH = 14


def section(kind: Any, attention: dict[str, Any]) -> Model:
    sizes = {"n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": 16} if kind is GPT2 else ONE_LAYER
    if kind is Qwen3:
        sizes = sizes | {"head_dim": 8}
    model: Model = kind.model_validate({**sizes, "attention": attention})
    return model


WINDOWED = [section(kind, WINDOW) for kind in (Mistral, Qwen2, Qwen3)]
BLOCKS = [section(kind, SPARSE) for kind in (GPT2, Llama, Mistral, Qwen2, Qwen3)]
EACH = pytest.mark.parametrize("model", [*WINDOWED, *BLOCKS], ids=lambda model: f"{model.type}-{model.attention.type}")


def seen(model: Model, query: int) -> set[int]:
    """The formula, told again."""
    attention: Any = model.attention  # type: ignore[union-attr]
    if attention.type == "sliding-window":
        return {key for key in range(query + 1) if query - key < attention.window}
    size, local, first = attention.block, attention.local_blocks, attention.global_blocks
    return {key for key in range(query + 1) if key // size < first or query // size - key // size < local}


def influence(module: Any, query: int) -> set[int]:
    """Tokens whose exchange changes the logits at `query`."""
    ids = torch.arange(LENGTH)[None]
    changed = ids.repeat(LENGTH, 1) + 50 * torch.eye(LENGTH, dtype=torch.int64)
    with torch.no_grad():
        before = module.eval()(input_ids=ids).logits[0, query]
        after = module(input_ids=changed).logits[:, query]
    return {token for token in range(LENGTH) if not torch.allclose(after[token], before, atol=1e-7)}


def built(model: Model, seed: int = 1) -> Any:
    module = build_model(model, vocab_size=257, seed=seed)
    with torch.no_grad():  # wide enough that what is seen shows
        for parameter in module.parameters():
            if parameter.dim() == 2:
                parameter.mul_(10)
    return module


@EACH
@pytest.mark.parametrize("query", [10, 13])
def test_a_token_is_influenced_by_what_it_sees_alone(model: Model, query: int) -> None:
    assert influence(built(model), query) == seen(model, query)
    assert len(seen(model, query)) < query + 1


@EACH
def test_no_gradient_reaches_what_is_not_seen(model: Model) -> None:
    module = built(model)
    embedded = module.get_input_embeddings()(torch.arange(LENGTH)[None]).detach().requires_grad_(True)
    module(inputs_embeds=embedded).logits[0, LENGTH - 1].square().sum().backward()
    reached = {token for token in range(LENGTH) if embedded.grad[0, token].abs().sum() > 0}
    assert reached == seen(model, LENGTH - 1)


@EACH
def test_an_export_and_a_new_run_attend_as_before(tmp_path: Path, model: Model) -> None:
    source = built(model).eval()
    save(bytes_tokenizer(), tmp_path / "tokenizer.json")
    export_hf(source, tmp_path / "tokenizer.json", tmp_path / "model")
    ids = torch.arange(LENGTH)[None]
    with torch.no_grad():
        expected = source(input_ids=ids).logits
        assert torch.equal(load_module(tmp_path / "model")(input_ids=ids).logits, expected)
    again = type(model).model_validate(section_of({"type": "pretrained", "path": "model"}, tmp_path))
    assert again == model.model_copy(update={"weights": "model", "vocab_size": 257})
    module = build_model(again, vocab_size=257, seed=2).eval()
    fill_from_folder(module, again, tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(module(input_ids=ids).logits, expected)


@EACH
def test_text_is_generated_as_without_a_cache(tmp_path: Path, model: Model) -> None:
    source = built(model).eval()
    save(bytes_tokenizer(), tmp_path / "tokenizer.json")
    export_hf(source, tmp_path / "tokenizer.json", tmp_path / "model")
    ids = list(b"abcdef")
    with torch.no_grad():
        while len(ids) < LENGTH:
            token = int(source(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
            if token == 256:
                break
            ids.append(token)
    text = generate_text(tmp_path / "model", "abcdef", max_new_tokens=LENGTH - 6, temperature=0)
    assert text == bytes_tokenizer().decode(ids, skip_special_tokens=False)


def test_an_attention_that_an_architecture_has_not_is_refused() -> None:
    with pytest.raises(ValidationError, match="does not match any of the expected tags: 'full', 'block-sparse'"):
        section(Llama, WINDOW)


def test_a_config_with_another_attention_is_one_sentence(tmp_path: Path) -> None:
    save(bytes_tokenizer(), tmp_path / "tokenizer.json")
    export_hf(built(BLOCKS[0]), tmp_path / "tokenizer.json", tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(path.read_text().replace("block-sparse", "dense"))
    with pytest.raises(UsageError, match=r"config\.json says llmasos_attention .*dense.*; expected a plan's attention"):
        load_module(tmp_path / "model")
