"""Summary: a T5 learns what counts in a report.

python examples/summary.py                      here, in a minute
python examples/summary.py --federated          with three institutions, by plans/summary.yaml
"""

from __future__ import annotations

from collections.abc import Sequence

from synthetic import PLANS, arguments, institutions, summary

import llmasos

REPORT = "ward 0 reports two; ward 1 reports seven; ward 2 reports one"


def main(given: Sequence[str] | None = None) -> None:
    args = arguments("Summary", steps=400, given=given)
    folders = institutions(args.work, "summary", summary)
    if args.federated:
        result = llmasos.simulate(PLANS / "summary.yaml", folders, out=args.work / "summary" / "out")
        print(result)
        print(result.model().generate_text("summarize: " + REPORT, temperature=0))
        return
    tokenizer = llmasos.tokenizers.train(args.work / "summary" / "data", vocab_size=400, text_column="report")
    task = {"type": "seq2seq", "source": "report", "target": "summary", "prefix": "summarize: "}
    data = llmasos.datasets.load_dataset(args.work / "summary" / "data", tokenizer, task=task)
    model = llmasos.models.T5(d_model=64, num_layers=2, num_heads=4, dropout_rate=0)
    history = model.fit(
        data.train,
        llmasos.optimizers.Adam(lr=3e-3),
        steps=args.steps,
        batch_size=16,
        sequence_length=64,
        validation=data.validation,
    )
    print(history)
    print(model.evaluate(data.test, sequence_length=64))
    print(model.generate_text(REPORT, temperature=0))  # the task's prefix is put before it
    model.save(args.work / "summary" / "model")


if __name__ == "__main__":
    main()
