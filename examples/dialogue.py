"""Dialogue with LoRA: a pre-trained Llama learns to answer; the adapter alone is trained, and alone would travel.

python examples/dialogue.py                     here, in a minute
python examples/dialogue.py --federated         with three institutions, by plans/dialogue.yaml
"""

from __future__ import annotations

from collections.abc import Sequence

from synthetic import PLANS, arguments, counting, dialogue, institutions

import llmasos


def main(given: Sequence[str] | None = None) -> None:
    args = arguments("Dialogue with LoRA", steps=200, given=given)
    folders = institutions(args.work, "dialogue", dialogue)
    if args.federated:
        result = llmasos.simulate(PLANS / "dialogue.yaml", folders, out=args.work / "dialogue" / "out")
        print(result)
        return
    institutions(args.work, "dialogue-texts", counting)
    corpus = args.work / "dialogue-texts" / "data"
    tokenizer = llmasos.tokenizers.train(corpus, vocab_size=300)
    texts = llmasos.datasets.load_dataset(corpus, tokenizer)
    model = llmasos.models.Llama(64, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64)
    print(model.fit(texts.train, llmasos.optimizers.AdamW(lr=3e-3), steps=args.steps))
    model.add_adapter(llmasos.adapters.LoRA(r=8, lora_alpha=16))
    data = llmasos.datasets.load_dataset(args.work / "dialogue" / "data", tokenizer, task="instruction")
    adam = llmasos.optimizers.AdamW(lr=1e-2)
    print(model.fit(data.train, adam, steps=args.steps, batch_size=16, validation=data.validation))
    print(model.evaluate(data.test))
    print(model.chat([{"role": "user", "content": "Say 7: what comes after three?"}], temperature=0))
    model.save(args.work / "dialogue" / "model")


if __name__ == "__main__":
    main()
