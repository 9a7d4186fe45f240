"""What every model of llmasos.models can do, each in a module of its own.

weights.py      architecture, vocabulary, head, adapter
trained.py      fit, evaluate
answering.py    generate_text, classify, answer, chat
kept.py         save, load
"""

from __future__ import annotations

from llmasos.language_model.answering import Answering
from llmasos.language_model.kept import Kept
from llmasos.language_model.trained import Trained


class LanguageModel(Trained, Answering, Kept):
    """Base of the models: an architecture as a plan names it, and weights once there is a vocabulary."""
