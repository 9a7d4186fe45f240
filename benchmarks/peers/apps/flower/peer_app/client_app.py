"""The client's side: take the parameters, change them a little, send them back."""

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from peer_app.workload import mark

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """One round. Tensor by tensor, so that this app holds the model once, not three times."""
    participant = int(context.node_config["partition-id"])
    number = int(message.content["config"]["server-round"])
    received, arrays = message.content["arrays"], ArrayRecord()
    for name in list(received):
        values = received.pop(name).numpy()
        mark(values, participant, number)
        arrays[name] = Array(values)
    content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})})
    return Message(content=content, reply_to=message)
