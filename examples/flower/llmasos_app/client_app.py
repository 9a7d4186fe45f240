"""A node's side: which institution it is, and where its text lies."""

from pathlib import Path

from flwr.app import Context

from llmasos.flower import Institution, client_app
from llmasos.training.corpus import Source


def institution(context: Context) -> Institution:
    """In a deployment a node names its own folder (`--node-config 'name="north" data="/srv/text"'`).

    In a simulation the nodes are numbered, and share the folders below `data` out among themselves.
    """
    config, node = context.run_config, context.node_config
    if "data" in node:
        name, text = str(node["name"]), Path(str(node["data"]))
    else:
        folders = sorted(path for path in Path(str(config["data"])).iterdir() if path.is_dir())
        text = folders[int(node["partition-id"])]
        name = text.name
    home = Path(str(config["state"])) / str(context.run_id)  # what one run keeps is nothing to the next
    return Institution(name, Path(str(config["prepared"])), (Source(text),), home)


app = client_app(institution)
