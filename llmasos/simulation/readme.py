"""README.md of the output folder: what lies where, and how to do parts of it by hand."""

from __future__ import annotations

import shlex

from llmasos.simulation.deployment import Commands
from llmasos.simulation.layout import Layout

TEXT = """\
# {title}

A whole consortium on one machine: a coordinator and {count} participants ({names}), each a process of its own with its own
keys, spoke mutual TLS on 127.0.0.1. Everything here was made by the commands of a real deployment and can be looked into.

| where | what |
|---|---|
| `report.html`, `report.json` | results for people and for programs |
| `model/` | the final model in Hugging Face layout: `llmasos generate {model} "text"` |
{adapter_rows}| `final.safetensors` | the same tensors, byte for byte as the run's last model blob |
| `plan.yaml`, `prepared/` | the plan; initial weights, tokenizer and tensor manifest, pinned by digest |
| `coordinator/` | its home: `coordinator.yaml`, `genesis.json`, `state.sqlite`, `blobs/`, `identity/` (keys: private) |
| `participants/NAME/` | an institution's home: `participant.yaml`, `policy.yaml`, `identity/`, `logs/worker.log` |
| `logs/` | what each process wrote: `coordinator.log`, one for each institution, `operator.log`, `watch.log` |
| `baselines/` | the same training without a federation: each institution alone, and all text pooled |
{data_row}
## Configuration

`coordinator/coordinator.yaml` and `participants/NAME/participant.yaml` hold every setting, `policy.yaml` what an institution
takes part in. Change one while its daemon is stopped.

## Restart one participant by hand

While the simulation runs, end one participant as a power cut would, and start it again in a terminal of its own. It goes
on where it was; the round waits for it until its deadline. Ctrl-C ends the one that you started.

```sh
kill -9 {pid}
{participant} start --home {home}
```

`python -m participant` is the command `llmasos-participant`, `python -m coordinator` is `llmasos-coordinator`.

## Look around after the end

The run has ended, but coordinator and participants can be started again on the same homes, each in its own terminal:

```sh
{coordinator} start --home {coordinator_home}
{participant} start --home {home}
{participant} status --home {home}
{coordinator} run list --home {coordinator_home}
```

## Check what happened

Every statement, every contribution and every round, from every party's side; then one file that proves it to somebody who
has nothing of this:

```sh
llmasos verify {root}
{coordinator} evidence export {root}/run.evidence --with-deltas --home {coordinator_home}
llmasos verify {root}/run.evidence
```

The next simulation with the same `--out` begins with removing all of this.
"""


ADAPTER_ROWS = """\
| `model/adapter/` | the trained adapter in peft's format; `model/` itself is `base/` with the adapter \
merged into it, or `base/` again where that is virtual tokens |
| `base/` | the frozen weights: `PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("base"), "model/adapter")` |
"""


def text(layout: Layout, *, title: str, institutions: tuple[str, ...], adapted: bool = False) -> str:
    """The page, with commands that can be copied as they are; `adapted`: the plan trains an adapter."""
    home = layout.participant(institutions[-1])
    commands = Commands()
    own_data = layout.data.exists()
    return TEXT.format(
        title=title,
        root=shlex.quote(str(layout.root)),
        count=len(institutions),
        names=", ".join(institutions),
        model=shlex.quote(str(layout.model)),
        adapter_rows=ADAPTER_ROWS if adapted else "",
        data_row="| `data/`, `public/` | the institutions' text, and the public text of the tokenizer |\n"
        if own_data
        else "",
        pid=f"$(cat {shlex.quote(str(home / 'lock'))})",
        participant=shlex.join(commands.participant),
        coordinator=shlex.join(commands.coordinator),
        home=shlex.quote(str(home)),
        coordinator_home=shlex.quote(str(layout.coordinator)),
    )


def write_readme(layout: Layout, *, title: str, institutions: tuple[str, ...], adapted: bool = False) -> None:
    page = text(layout, title=title, institutions=institutions, adapted=adapted)
    layout.readme.write_text(page, encoding="utf-8")
