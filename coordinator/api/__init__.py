"""The coordinator's gRPC servers: servicers decode, call a port, encode; the interceptor does what all calls share.

server        the listeners, their thread pools, the sweep over open calls
interceptor   every call passes here: a door, then the servicer; errors become status and detail
doors         who gets in; limits: how often; calls: who is in, and what ends a call early
bulk          the listener for large blobs, without gRPC, by the same interceptor
work, blobs, operations, enrolment    the services; intake: uploads that were begun
convert, convert_views                wire messages to and from coordinator.ports
client        the calling end of Operations, for the operator's commands
"""
