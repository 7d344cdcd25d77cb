-- The Archive Origin schema that the exporter's first tenant has; belongs to the sample, not to the exporter.
CREATE TYPE enrollment_status AS ENUM ('pending', 'active', 'suspended', 'revoked');

CREATE TABLE enrollments (
    id uuid NOT NULL,
    user_id text NOT NULL,
    device_name text NOT NULL,
    platform text NOT NULL,
    algorithm text NOT NULL,
    key_id text NOT NULL,
    public_key bytea NOT NULL,
    status enrollment_status NOT NULL,
    attested boolean NOT NULL,
    created_at timestamptz NOT NULL,
    revoked_at timestamptz,
    attributes jsonb NOT NULL
);

CREATE TABLE proofs (
    id uuid NOT NULL,
    enrollment_id uuid NOT NULL,
    user_id text NOT NULL,
    label text,
    media_type text NOT NULL,
    size_bytes bigint NOT NULL,
    sha256 text NOT NULL,
    signature bytea NOT NULL,
    captured_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    latitude numeric(9, 6),
    longitude numeric(9, 6),
    tags text[] NOT NULL,
    metadata jsonb NOT NULL
);

CREATE TABLE ledger (
    id bigint NOT NULL,
    kind text NOT NULL,
    user_id text NOT NULL,
    subject_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    amount numeric(18, 6) NOT NULL,
    sealed boolean NOT NULL,
    payload jsonb NOT NULL,
    previous_hash text NOT NULL,
    entry_hash text NOT NULL
);

COMMENT ON TABLE enrollments IS 'Devices enrolled by users, with their keys';
COMMENT ON TABLE proofs IS 'Proofs of captured assets';
COMMENT ON TABLE ledger IS 'Entries, each holding the hash of the one before';
