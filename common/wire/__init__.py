"""The wire: generated code (v1, from proto/llmasos/v1), and the only modules that touch it or gRPC's settings.

    channel    credentials, channel and server options: every gRPC constant of both sides
    convert    between messages and our own types; presence, range and size are checked there and nowhere else
    errors     the error family as gRPC status and detail, and back
    transfer   blobs over streams of pieces, verified and resumed by chunk

Everything else passes our own types around.
"""
