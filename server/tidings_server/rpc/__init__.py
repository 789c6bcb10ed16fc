"""The gRPC transport: servicers, the table of statuses, and what is open to whom."""
