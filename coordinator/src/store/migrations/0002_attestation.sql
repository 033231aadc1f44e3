-- What signers booted. A row goes when its signer is unpaired.
CREATE TABLE attestation (
    signer TEXT PRIMARY KEY,
    -- When it was asked last; none: it is to be asked now.
    asked_at INTEGER,
    -- The signer_request that is not answered yet. An answer to any other one says nothing.
    request TEXT,
    -- The statement (JSON) that later ones are held against.
    pinned TEXT,
    pinned_at INTEGER,
    verified_at INTEGER,
    -- Orders are handed out until then. 0: none are.
    trusted_until INTEGER NOT NULL DEFAULT 0,
    -- The newest statement that is the signer's own and not what is pinned: what an operator may accept.
    offered TEXT,
    problem_code TEXT,
    problem_message TEXT,
    problem_at INTEGER
) STRICT;
