"""`llmasos`: plans, simulation, generation, witnessing. The daemons have commands of their own.

llmasos plan check configs/plans/tiny.yaml
llmasos simulate --institution north=./texts/north --institution south=./texts/south --out out/first
llmasos generate out/first/model "Once upon"
"""

from __future__ import annotations

from typing import NoReturn

from common.terminal import new_app, run_app
from llmasos.commands import plan
from llmasos.commands.demo import demo
from llmasos.commands.evaluate import evaluate
from llmasos.commands.generate import generate
from llmasos.commands.simulate import simulate
from llmasos.commands.tune import tune
from llmasos.commands.verify import verify
from llmasos.commands.witness import witness

app = new_app("llmasos", "Train one language model with institutions that may not share data.")
app.add_typer(plan.app, name="plan")
app.command()(simulate)
app.command()(demo)
app.command()(generate)
app.command()(evaluate)
app.command()(tune)
app.command()(verify)
app.command()(witness)


def main() -> NoReturn:
    """Entry point of the installed command."""
    run_app(app)


if __name__ == "__main__":
    main()
