"""A bilingual consortium: English and Chinese, where a token says more or less text, so bytes are what weighs and compares.

python examples/bilingual.py                    here, in a minute
python examples/bilingual.py --federated        with three institutions, by plans/bilingual.yaml
"""

from __future__ import annotations

from collections.abc import Sequence

from synthetic import CHINESE, ENGLISH, PLANS, arguments, bilingual, counting, institutions

import llmasos


def main(given: Sequence[str] | None = None) -> None:
    args = arguments("A bilingual consortium", steps=150, given=given)
    folders = institutions(args.work, "bilingual", bilingual)
    if args.federated:
        result = llmasos.simulate(PLANS / "bilingual.yaml", folders, out=args.work / "bilingual" / "out")
        print(result)
        print(result.model().generate_text("一 二", temperature=0, max_new_tokens=40))
        return
    corpus = args.work / "bilingual" / "data"
    tokenizer = llmasos.tokenizers.train(corpus, vocab_size=320)
    data = llmasos.datasets.load_dataset(corpus, tokenizer)
    model = llmasos.models.GPT(n_layer=2, n_head=4, n_embd=64, n_positions=64)
    print(model.fit(data.train, llmasos.optimizers.AdamW(lr=3e-3), steps=args.steps, validation=data.validation))
    for name, words in (("english", ENGLISH), ("chinese", CHINESE)):
        institutions(args.work, f"bilingual-{name}", lambda chosen, words=words: counting(chosen, words), count=20)
        texts = llmasos.datasets.load_dataset(args.work / f"bilingual-{name}" / "data", tokenizer)
        print(f"{name}: {model.evaluate(texts.test).bits_per_byte:.3f} bits per byte")
    print(model.generate_text("一 二", temperature=0, max_new_tokens=20))
    model.save(args.work / "bilingual" / "model")


if __name__ == "__main__":
    main()
