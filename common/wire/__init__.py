"""The wire: generated code (v1, from proto/llmasos/v1), and the only modules that touch it or gRPC's settings.

    channel    credentials, channel and server options: every gRPC constant of both sides
    messages   what messages become: our own types; convert makes them, with check for presence, range and size
    convert    between messages and our own types; presence, range and size are checked there and nowhere else
    errors     the error family as gRPC status and detail, and back
    chunks     chunks of blobs as pieces of streams, cut and put together
    transfer   blobs over streams of pieces, verified and resumed by chunk
    session    the calling end of both listeners: channel, stubs, deadlines and errors in one object

Everything else passes our own types around.
"""
