"""Question answering: a BERT finds the answer to a question in a text.

python examples/question_answering.py               here, in a minute
python examples/question_answering.py --federated   with three institutions, by plans/question-answering.yaml
"""

from __future__ import annotations

from collections.abc import Sequence

from synthetic import PLANS, arguments, institutions, question

import llmasos


def main(given: Sequence[str] | None = None) -> None:
    args = arguments("Question answering", steps=400, given=given)
    folders = institutions(args.work, "question-answering", question)
    if args.federated:
        out = args.work / "question-answering" / "out"
        result = llmasos.simulate(PLANS / "question-answering.yaml", folders, out=out)
        print(result)
        return
    corpus = args.work / "question-answering" / "data"
    tokenizer = llmasos.tokenizers.train(corpus, vocab_size=400, text_column="context")
    data = llmasos.datasets.load_dataset(corpus, tokenizer, task="question-answering")
    model = llmasos.models.BERT(64, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64, dropout=0)
    adam = llmasos.optimizers.AdamW(lr=2e-3)
    print(model.fit(data.train, adam, steps=args.steps, batch_size=16, validation=data.validation))
    print(model.evaluate(data.test))
    print(model.answer("what has bo ?", "ada has two . bo has seven . chen has one"))
    model.save(args.work / "question-answering" / "model")


if __name__ == "__main__":
    main()
