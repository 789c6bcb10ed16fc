-- Who is mentioned in which message; the user_id '' stands for everybody. An empty author: it
-- was taken back. The row with the larger as_of wins.
CREATE TABLE mention (
    log TEXT NOT NULL,
    user_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    as_of INTEGER NOT NULL,
    author TEXT NOT NULL,
    PRIMARY KEY (log, user_id, seq)
) STRICT, WITHOUT ROWID;
