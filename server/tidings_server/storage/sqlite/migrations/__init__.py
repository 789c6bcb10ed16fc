"""The schema of the database, as numbered steps: `NNNN_name.sql`. A step that was released is never changed."""
