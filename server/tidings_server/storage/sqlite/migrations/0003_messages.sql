-- What later entries made of a message: a row for each message that was changed, the change with the larger as_of wins.
CREATE TABLE overlay (
    log TEXT NOT NULL,
    seq INTEGER NOT NULL,
    as_of INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (log, seq)
) STRICT, WITHOUT ROWID;

-- One row for each message and user who has ever reacted to it; an empty reaction was taken back.
CREATE TABLE reaction (
    log TEXT NOT NULL,
    seq INTEGER NOT NULL,
    user_id TEXT NOT NULL,
    as_of INTEGER NOT NULL,
    reaction TEXT NOT NULL,
    PRIMARY KEY (log, seq, user_id)
) STRICT, WITHOUT ROWID;
