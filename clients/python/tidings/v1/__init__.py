"""Messages and gRPC stubs of `tidings.v1`, generated from `proto/` by `make generate`."""
