"""The wire: generated code (v1, from proto/llmasos/v1), and the only modules that touch it or gRPC's settings.

    channel    credentials, channel and server options: every gRPC constant of both sides
    messages   what messages become: our own types; convert makes them, with check for presence, range and size
    convert    between messages and our own types; presence, range and size are checked there and nowhere else
    errors     the error family as gRPC status and detail, and back
    chunks     chunks of blobs as pieces of streams, cut and put together
    transfer   blobs over streams of pieces, verified and resumed by chunk
    bulk       the same calls without HTTP/2, for long ways; ways: which connections a blob goes over
    session    the calling end of all listeners: channel, stubs, deadlines and errors in one object
    reach      why a coordinator is not reached, step by step; with proxy (what lies before it) and handshake (its certificate)

Everything else passes our own types around.
"""

from __future__ import annotations

import os

# gRPC's C core would write lines of its own on stderr at each failed connection, between ours; what they say, errors say. Read
# when gRPC is first loaded, so that it must be set before anything here imports it.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
