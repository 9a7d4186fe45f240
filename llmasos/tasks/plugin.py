"""Tasks that this installation has beyond our own: entry points of group `llmasos.tasks`.

An entry point is an object with two functions; see TaskPlugin. It is loaded only for a plan that names it with the version of
the distribution that it comes in, and a participant prepares such a plan only where its policy allows that name and version.
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Protocol

from common.errors import UsageError
from common.plan.model import Plan
from common.plan.tasks import Plugin
from llmasos.tasks.base import Objective, Recipe

if TYPE_CHECKING:
    from tokenizers import Tokenizer

GROUP = "llmasos.tasks"


class TaskPlugin(Protocol):
    """What an entry point must be."""

    def objective(self, task: Plugin) -> Objective:
        """The loss."""
        ...

    def recipe(self, plan: Plan, tokenizer: Tokenizer) -> Recipe:
        """How data become batches; `plan.task` is the plugin's section."""
        ...


def load_plugin(task: Plugin) -> TaskPlugin:
    """The installed plugin that a plan names.

    Raises:
        UsageError: there is none of that name, several, another version, or it is no task or cannot be imported.
    """
    found = [entry for entry in metadata.entry_points(group=GROUP) if entry.name == task.name]
    installed = sorted({entry.dist.version for entry in found if entry.dist is not None})
    fix = f"Install {task.pinned} for the worker, after a look at what it does with the data."
    if not found:
        raise UsageError(
            f"Task plugin {task.name} is not installed: no entry point of group {GROUP} has that name.", fix
        )
    if len(found) > 1:
        raise UsageError(f"Task plugin {task.name} is offered by {len(found)} distributions, expected one.", fix)
    if installed != [task.version]:
        raise UsageError(
            f"Task plugin {task.name} is installed in version {', '.join(installed)}, the plan names {task.version}.",
            fix,
        )
    try:
        plugin: TaskPlugin = found[0].load()
    except Exception as err:
        raise UsageError(f"Task plugin {task.pinned} cannot be imported: {type(err).__name__}.", fix) from err
    if not all(callable(getattr(plugin, name, None)) for name in ("objective", "recipe")):
        raise UsageError(f"Task plugin {task.pinned} is no task: expected an object with objective and recipe.", fix)
    return plugin
