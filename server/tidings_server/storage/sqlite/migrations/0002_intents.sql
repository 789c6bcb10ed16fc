-- Logs that a node may have appended to without telling of it. One process has this database, and its clients connect
-- again when it dies: it writes no rows here.
CREATE TABLE intent (
    node_id TEXT NOT NULL,
    round INTEGER NOT NULL,
    log TEXT NOT NULL,
    PRIMARY KEY (node_id, round, log)
) STRICT, WITHOUT ROWID;
