"""The schema of a keyspace, as numbered steps: `NNNN_name.cql`. A step that was released is never changed.

There are no transactions over schema changes: each statement must do no harm when it is carried out again.
"""
