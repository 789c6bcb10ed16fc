-- What is true of the whole database: its incarnation, and a counter that proves that it can be written.
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

-- Earlier incarnations. Pages appended after one ended have a stamp of at least `stamp`, those before a smaller one.
CREATE TABLE ended_history (
    incarnation TEXT PRIMARY KEY,
    stamp INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Names of logs are long and in every page: pages refer to them by number.
CREATE TABLE log (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

-- One row a commit, in the order of commits, so that a transaction over many logs fills the same few database pages.
-- The newest row of a log is its head. Small columns come first and the body last, so that reading them does not
-- follow the chain of overflow pages.
CREATE TABLE page (
    log INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    count INTEGER NOT NULL,
    stamp INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    flags INTEGER NOT NULL,
    rev INTEGER NOT NULL,
    commit_id BLOB NOT NULL,
    pending BLOB NOT NULL,
    ids BLOB NOT NULL,
    body BLOB NOT NULL
) STRICT;

-- Pages are contiguous, so this is also the fence: two commits can't begin at one position.
CREATE UNIQUE INDEX page_by_position ON page (log, first_seq);

-- Few pages of conversations have a flag; loading a conversation reads just those.
CREATE INDEX page_flagged ON page (log, first_seq, flags) WHERE flags <> 0;

-- The state of a log before the first entry of each bucket of 10,000.
CREATE TABLE bucket (
    log INTEGER NOT NULL,
    bucket INTEGER NOT NULL,
    state BLOB NOT NULL,
    UNIQUE (log, bucket)
) STRICT;

CREATE TABLE membership (
    log TEXT NOT NULL,
    user_id TEXT NOT NULL,
    as_of INTEGER NOT NULL,
    role INTEGER NOT NULL,
    is_current INTEGER NOT NULL,
    intervals TEXT NOT NULL,
    PRIMARY KEY (log, user_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE user_log (
    user_id TEXT NOT NULL,
    log TEXT NOT NULL,
    PRIMARY KEY (user_id, log)
) STRICT, WITHOUT ROWID;

CREATE TABLE device_cursor (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    log TEXT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (user_id, device_id, log)
) STRICT, WITHOUT ROWID;

CREATE TABLE receipt (
    log TEXT NOT NULL,
    user_id TEXT NOT NULL,
    delivered_seq INTEGER NOT NULL,
    read_seq INTEGER NOT NULL,
    read_ordinal INTEGER NOT NULL,
    PRIMARY KEY (log, user_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE presence (
    user_id TEXT PRIMARY KEY,
    last_seen_ms INTEGER NOT NULL,
    status_ms INTEGER NOT NULL,
    availability INTEGER NOT NULL,
    status_text TEXT NOT NULL
) STRICT, WITHOUT ROWID;
