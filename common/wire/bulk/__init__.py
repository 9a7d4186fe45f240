"""Chunks of large blobs over connections of their own: the messages of Put and Get in frames on TLS 1.3, without HTTP/2.

    tls      contexts: the certificates that the work listener takes, the same rules
    line     one connection: frames in and out, in buffers that are used again
    calls    the calling end: Put and Get as gRPC's stub gives them, for common.wire.transfer
    codec    pieces, requests and errors as frames

The listening end is coordinator.api.bulk; docs/protocol.md#bulk is the contract, ADR 0027 the reason.
"""
