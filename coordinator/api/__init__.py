"""The coordinator's gRPC servers: servicers decode, call a port, encode; the interceptor does what all calls share."""
