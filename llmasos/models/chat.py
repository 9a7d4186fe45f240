"""A plan's chat template as transformers reads one, so that `tokenizer.apply_chat_template` writes what was trained.

A plan's template is data; what is made of it here is Jinja in which each of its texts is a quoted string.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from common.plan.tasks import ChatTemplate, Instruction, Mixture, Preference, TaskSection, is_special
from llmasos.tokenizers import end_of_document_id

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def template_of(task: TaskSection | None) -> ChatTemplate | None:
    """How a task writes conversations; of a mixture, how its first task on conversations does. None: it has none."""
    if isinstance(task, Mixture):
        found = (template_of(part.task) for part in task.tasks)
        return next((template for template in found if template is not None), None)
    return task.template if isinstance(task, Instruction | Preference) else None


def as_jinja(template: ChatTemplate) -> str:
    """The same for `tokenizer.apply_chat_template`: each message between its role's texts, and what begins an answer."""
    branches = "".join(
        f"{{% {'elif' if number else 'if'} message['role'] == {role!r} %}}"
        f"{{{{ {turn.prefix!r} + message['content'] + {turn.suffix!r} }}}}"
        for number, (role, turn) in enumerate(template.turns.items())
    )
    answer = f"{{% if add_generation_prompt %}}{{{{ {template.assistant.prefix!r} }}}}{{% endif %}}"
    return f"{{% for message in messages %}}{branches}{{% endif %}}{{% endfor %}}{answer}"


def stops(template: ChatTemplate | None, tokenizer: Tokenizer) -> Sequence[int]:
    """The special token that ends an answer, where one does."""
    pieces = () if template is None else template.assistant.pieces[1]
    found = next((tokenizer.token_to_id(piece) for piece in pieces if is_special(piece)), None)
    return [] if found is None or found == end_of_document_id(tokenizer) else [found]
