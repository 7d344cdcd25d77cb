-- After the rows: one sort is quicker than a million insertions.
ALTER TABLE enrollments ADD PRIMARY KEY (id);
ALTER TABLE proofs ADD PRIMARY KEY (id);
ALTER TABLE proofs ADD FOREIGN KEY (enrollment_id) REFERENCES enrollments (id);
ALTER TABLE ledger ADD PRIMARY KEY (id);
CREATE INDEX ON enrollments (created_at, id);
CREATE INDEX ON enrollments (user_id, created_at);
CREATE INDEX ON proofs (created_at, id);
CREATE INDEX ON proofs (user_id, created_at);
CREATE INDEX ON ledger (created_at, id);
CREATE INDEX ON ledger (user_id, created_at);

-- The chain can be checked where it is: this view is empty as long as it holds.
CREATE VIEW ledger_broken_links AS
SELECT id, previous_hash, entry_hash
FROM (
    SELECT
        *,
        lag(entry_hash, 1, repeat('0', 64)) OVER (ORDER BY id) AS expected_previous,
        encode(sha256(convert_to(concat_ws(
            '|', previous_hash, id, kind, user_id, subject_id, (extract(epoch FROM created_at) * 1000000)::bigint,
            amount, sealed::int, payload
        ), 'UTF8')), 'hex') AS expected_hash
    FROM ledger
) AS entry
WHERE previous_hash <> expected_previous OR entry_hash <> expected_hash;
