-- What the first version does not know of a membership, as JSON; empty for nothing.
ALTER TABLE membership ADD COLUMN details TEXT NOT NULL DEFAULT '';
