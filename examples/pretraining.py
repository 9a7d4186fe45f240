"""Pre-training: a small Transformer learns to continue text.

python examples/pretraining.py                  here, in a minute
python examples/pretraining.py --federated      with three institutions, by plans/pretraining.yaml
"""

from __future__ import annotations

from collections.abc import Sequence

from synthetic import PLANS, arguments, counting, institutions

import llmasos


def main(given: Sequence[str] | None = None) -> None:
    args = arguments("Pre-training", steps=150, given=given)
    folders = institutions(args.work, "pretraining", counting)
    if args.federated:
        result = llmasos.simulate(PLANS / "pretraining.yaml", folders, out=args.work / "pretraining" / "out")
        print(result)
        print(result.model().generate_text("one two", temperature=0, max_new_tokens=20))
        return
    corpus = args.work / "pretraining" / "data"
    tokenizer = llmasos.tokenizers.train(corpus, vocab_size=300)
    data = llmasos.datasets.load_dataset(corpus, tokenizer=tokenizer)
    model = llmasos.models.Transformer(d_model=64, nhead=4, num_layers=2, max_positions=64)
    print(model.fit(data.train, llmasos.optimizers.Adam(lr=3e-3), steps=args.steps, validation=data.validation))
    print(model.evaluate(data.test))
    print(model.generate_text("one two", temperature=0, max_new_tokens=20))
    model.save(args.work / "pretraining" / "model")


if __name__ == "__main__":
    main()
