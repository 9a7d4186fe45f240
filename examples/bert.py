"""BERT: pre-trained on hidden words and on which sentence follows, then fine-tuned to tell languages apart.

python examples/bert.py                         here, in a minute
python examples/bert.py --federated             pre-training with three institutions, by plans/bert.yaml
"""

from __future__ import annotations

from collections.abc import Sequence

from synthetic import PLANS, arguments, counting, institutions, language

import llmasos


def main(given: Sequence[str] | None = None) -> None:
    args = arguments("BERT", steps=150, given=given)
    folders = institutions(args.work, "bert", counting)
    if args.federated:
        result = llmasos.simulate(PLANS / "bert.yaml", folders, out=args.work / "bert" / "out")
        print(result)
        return
    institutions(args.work, "bert-languages", language)
    tokenizer = llmasos.tokenizers.train(args.work / "bert" / "data", vocab_size=300)
    texts = llmasos.datasets.load_dataset(args.work / "bert" / "data", tokenizer)
    model = llmasos.models.BERT(64, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64)
    adam = llmasos.optimizers.AdamW(lr=3e-3)
    print(model.fit(texts.train, adam, llmasos.losses.MaskedLMLoss(next_sentence=True), steps=args.steps))
    task = {"type": "sequence-classification", "labels": ["german", "english"]}
    labelled = llmasos.datasets.load_dataset(args.work / "bert-languages" / "data", tokenizer, task=task)
    print(model.fit(labelled.train, adam, steps=args.steps, validation=labelled.validation))
    print(model.evaluate(labelled.test))
    print(model.classify("drei vier acht"))
    model.save(args.work / "bert" / "model")


if __name__ == "__main__":
    main()
