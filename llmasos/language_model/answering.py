"""What a model says: text after a prompt, a label, an answer, a turn of a conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from common.errors import UsageError
from common.plan.tasks import Instruction, QuestionAnswering, Seq2Seq, SequenceClassification
from llmasos.language_model.weights import WithWeights


class Answering(WithWeights):
    """A model that is asked for what it was fitted to."""

    def generate_text(
        self,
        prompt: str = "",
        *,
        max_new_tokens: int = 100,
        temperature: float = 0.8,
        top_k: int | None = None,
        seed: int = 0,
    ) -> str:
        """`prompt` and what the model writes after it, up to the end of a document or `max_new_tokens`.

        Of an encoder-decoder, `prompt` is the source, and what comes is the target alone. The same arguments give the same text
        on the same machine. Of a prompt longer than the model's context, it sees the end; of a source, the beginning.

        Args:
            temperature: 0 takes the likeliest token; else one is drawn, the more evenly the higher it is.
            top_k: draw from so many of the likeliest; by default from all.
            seed: draws follow from it.

        Raises:
            UsageError: a setting is out of range, the prompt is no text, or the model has no weights or no tokenizer, or
                writes no text.
        """
        from llmasos.generation import WRITING, Sampling, continue_text, write_target

        if not isinstance(prompt, str):
            raise UsageError(f"prompt is a {type(prompt).__name__}, expected a text.", "Ask for one text at a time.")
        sampling = Sampling(temperature, top_k, seed)
        module, tokenizer = self.module, self._tokenizer("generate text")
        if self.head not in WRITING:
            raise UsageError(
                f"This {type(self).__name__} ends in {self.head}, which writes no text.",
                "Ask a model that ends in causal-lm or seq2seq-lm: GPT, T5, Transformer and others.",
            )
        module.train(False)
        if self.head == "causal-lm":
            return continue_text(module, tokenizer, prompt, max_new_tokens=max_new_tokens, sampling=sampling)
        source = (self.task.prefix if isinstance(self.task, Seq2Seq) else "") + prompt
        return write_target(module, tokenizer, source, max_new_tokens=max_new_tokens, sampling=sampling)

    def classify(self, text: str, text_pair: str | None = None) -> dict[str, float]:
        """The probability of each label of the task that the model was fitted to, the likeliest first.

        Args:
            text: what is to be judged, and
            text_pair: what it is judged with, where the task judges pairs.

        Raises:
            UsageError: it was fitted to another task.
        """
        from llmasos.language_model.using import label_of

        task = self._fitted_to(SequenceClassification)
        texts = (text,) if text_pair is None else (text, text_pair)
        return label_of(self.module.train(False), self._tokenizer("classify"), task, self._longest(), texts)

    def answer(self, question: str, context: str) -> str:
        """The likeliest answer that stands in `context`, word for word; empty where the model finds none.

        Raises:
            UsageError: it was fitted to another task than question-answering.
        """
        from llmasos.language_model.using import answer_to

        task = self._fitted_to(QuestionAnswering)
        tokenizer = self._tokenizer("answer")
        return answer_to(self.module.train(False), tokenizer, task, self._longest(), question, context)

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_new_tokens: int = 100,
        temperature: float = 0.8,
        top_k: int | None = None,
        seed: int = 0,
    ) -> str:
        """What the assistant says next.

        Args:
            messages: [{"role": "user", "content": "…"}, …], roles system, user and assistant.
            max_new_tokens, temperature, top_k, seed: as generate_text.

        Raises:
            UsageError: it was fitted to another task than instruction, or a message is none.
        """
        from llmasos.generation import Sampling, continue_ids
        from llmasos.language_model.using import turn_ids

        task, tokenizer = self._fitted_to(Instruction), self._tokenizer("chat")
        ids, end = turn_ids(tokenizer, task, messages)
        sampling, module = Sampling(temperature, top_k, seed), self.module.train(False)
        return continue_ids(module, tokenizer, ids, end, max_new_tokens=max_new_tokens, sampling=sampling)
