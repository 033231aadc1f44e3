-- Times are milliseconds since 1970, amounts satoshi, txids and block hashes hex in display order.

CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;

-- One holder at a time works on a component; a lease that ran out is anybody's.
CREATE TABLE lease (name TEXT PRIMARY KEY, holder TEXT NOT NULL, until_ms INTEGER NOT NULL) STRICT;

CREATE TABLE api_key (
    id TEXT PRIMARY KEY,
    person TEXT NOT NULL,
    hash BLOB NOT NULL,
    scopes TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;

CREATE TABLE orders (
    id TEXT PRIMARY KEY,
    external_id TEXT NOT NULL UNIQUE,
    wallet TEXT NOT NULL,
    address TEXT NOT NULL,
    script BLOB NOT NULL,
    amount_sat INTEGER NOT NULL CHECK (amount_sat > 0),
    note TEXT,
    state TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    created_person TEXT NOT NULL,
    approval_hash TEXT NOT NULL,
    approved_at INTEGER,
    approved_by TEXT,
    -- The family that the order is bound to. Set once, when it is batched; cleared only when a member of that family that does
    -- not pay the order is buried.
    family INTEGER REFERENCES family (id),
    blocked_kind TEXT,
    blocked_code TEXT,
    blocked_until INTEGER,
    blocked_message TEXT,
    -- The signer refused this order alone, with this code.
    refused_code TEXT,
    changed_at INTEGER NOT NULL
) STRICT;
CREATE INDEX orders_state ON orders (state, wallet, created_at);
CREATE INDEX orders_family ON orders (family) WHERE family IS NOT NULL;

CREATE TABLE idempotency (
    api_key TEXT NOT NULL,
    key TEXT NOT NULL,
    body_hash BLOB NOT NULL,
    order_id TEXT NOT NULL REFERENCES orders (id),
    PRIMARY KEY (api_key, key)
) STRICT;

-- All transactions that spend the anchor: at most one of them can confirm.
CREATE TABLE family (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    wallet TEXT NOT NULL,
    anchor_txid TEXT NOT NULL,
    anchor_vout INTEGER NOT NULL,
    change_branch INTEGER NOT NULL,
    change_index INTEGER NOT NULL,
    state TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    settled_at INTEGER
) STRICT;
CREATE INDEX family_open ON family (state) WHERE state = 'open';
CREATE INDEX family_anchor ON family (anchor_txid, anchor_vout);

-- A transaction of a family. Rows are never deleted: what was once asked to be signed may be somewhere.
CREATE TABLE member (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    family INTEGER NOT NULL REFERENCES family (id),
    state TEXT NOT NULL,
    unsigned_txid TEXT NOT NULL UNIQUE,
    psbt BLOB NOT NULL,
    fee_sat INTEGER NOT NULL,
    weight_wu INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    txid TEXT,
    final_tx BLOB,
    broadcast_at INTEGER,
    broadcast_height INTEGER,
    not_before INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX member_family ON member (family);
CREATE INDEX member_txid ON member (txid) WHERE txid IS NOT NULL;

CREATE TABLE member_output (
    member INTEGER NOT NULL REFERENCES member (id),
    order_id TEXT NOT NULL REFERENCES orders (id),
    vout INTEGER NOT NULL,
    PRIMARY KEY (member, order_id)
) STRICT;
CREATE INDEX member_output_order ON member_output (order_id);

CREATE TABLE signature (
    member INTEGER NOT NULL REFERENCES member (id),
    signer TEXT NOT NULL,
    body BLOB NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (member, signer)
) STRICT;

CREATE TABLE wallet_stop (wallet TEXT PRIMARY KEY, code TEXT NOT NULL, message TEXT NOT NULL, at INTEGER NOT NULL) STRICT;

CREATE TABLE script (
    wallet TEXT NOT NULL,
    branch INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    script BLOB NOT NULL UNIQUE,
    public_key BLOB,
    -- Handed out: for a deposit's reference, or as a family's change.
    handed_at INTEGER,
    handed_for TEXT,
    PRIMARY KEY (wallet, branch, idx)
) STRICT;
CREATE UNIQUE INDEX script_reference ON script (wallet, handed_for) WHERE handed_for IS NOT NULL;

-- Outputs that pay to scripts of ours.
CREATE TABLE coin (
    txid TEXT NOT NULL,
    vout INTEGER NOT NULL,
    wallet TEXT NOT NULL,
    branch INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    value_sat INTEGER NOT NULL,
    coinbase INTEGER NOT NULL,
    -- In this block; none: in the mempool, or, with present = 0, nowhere.
    height INTEGER,
    present INTEGER NOT NULL,
    first_seen INTEGER NOT NULL,
    spent_txid TEXT,
    spent_height INTEGER,
    reserved_by INTEGER REFERENCES family (id),
    -- The anchor of a refused family: spent before others, so that a signature that was kept back is worth nothing.
    spend_first INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (txid, vout)
) STRICT;
CREATE INDEX coin_wallet ON coin (wallet, spent_txid, reserved_by);
CREATE INDEX coin_height ON coin (height);
CREATE INDEX coin_spent_height ON coin (spent_height);
CREATE INDEX coin_script ON coin (wallet, branch, idx);

-- Transactions that pay to us or spend from us, whole.
CREATE TABLE tx (txid TEXT PRIMARY KEY, unsigned_txid TEXT NOT NULL, raw BLOB NOT NULL) STRICT;
CREATE INDEX tx_unsigned ON tx (unsigned_txid);

-- The chain as followed.
CREATE TABLE block (height INTEGER PRIMARY KEY, hash TEXT NOT NULL) STRICT;

CREATE TABLE signer (
    name TEXT PRIMARY KEY,
    tls_pin TEXT NOT NULL UNIQUE,
    client_auth TEXT NOT NULL,
    signer_key TEXT NOT NULL UNIQUE,
    added_at INTEGER NOT NULL,
    removed_at INTEGER,
    last_pull_at INTEGER,
    heartbeat_at INTEGER,
    heartbeat TEXT
) STRICT;

CREATE TABLE signer_request (
    id TEXT PRIMARY KEY,
    signer TEXT NOT NULL,
    wallet TEXT NOT NULL,
    kind TEXT NOT NULL,
    member INTEGER REFERENCES member (id),
    body BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    not_before INTEGER NOT NULL,
    handed INTEGER NOT NULL DEFAULT 0,
    handed_at INTEGER,
    reply BLOB,
    replied_at INTEGER,
    -- What the reply meant, once it took effect.
    outcome TEXT
) STRICT;
CREATE INDEX signer_request_open ON signer_request (signer, not_before) WHERE reply IS NULL;
CREATE INDEX signer_request_unapplied ON signer_request (replied_at) WHERE reply IS NOT NULL AND outcome IS NULL;
CREATE INDEX signer_request_member ON signer_request (member);
