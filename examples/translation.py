"""Translation: the Transformer of 2017 learns German numbers in English, as in "Attention is all you need".

python examples/translation.py                  here, in a minute
python examples/translation.py --federated      with three institutions, by plans/translation.yaml
"""

from __future__ import annotations

from collections.abc import Sequence

from synthetic import PLANS, arguments, institutions, translation

import llmasos


def main(given: Sequence[str] | None = None) -> None:
    args = arguments("Translation", steps=600, given=given)
    folders = institutions(args.work, "translation", translation)
    if args.federated:
        result = llmasos.simulate(PLANS / "translation.yaml", folders, out=args.work / "translation" / "out")
        print(result)
        print(result.model().generate_text("drei eins", temperature=0))
        return
    tokenizer = llmasos.tokenizers.train(args.work / "translation" / "data", vocab_size=320, text_column="german")
    task = {"type": "seq2seq", "source": "german", "target": "english"}
    data = llmasos.datasets.load_dataset(args.work / "translation" / "data", tokenizer, task=task)
    model = llmasos.models.Transformer(
        d_model=64, nhead=4, num_layers=2, dropout=0, max_positions=64, architecture="encoder-decoder"
    )
    adam = llmasos.optimizers.Adam(lr=1.0, betas=(0.9, 0.98), eps=1e-9)  # a factor: the schedule makes the rate
    training = llmasos.TrainingSettings(schedule={"type": "noam", "d_model": 512}, warmup_steps=200)
    print(model.fit(data.train, adam, steps=args.steps, batch_size=16, training=training, validation=data.validation))
    print(model.evaluate(data.test))
    print(model.generate_text("drei eins", temperature=0))
    model.save(args.work / "translation" / "model")


if __name__ == "__main__":
    main()
