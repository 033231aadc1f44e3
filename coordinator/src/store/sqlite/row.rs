//! Rows to types and back. What makes no sense is [`StoreError::Damaged`], never a guess.

use std::str::FromStr;

use bitcoin::ScriptBuf;
use sqlx::{Row as _, sqlite::SqliteRow};

use super::super::{
    Blocked, BlockedKind, Family, FamilyState, KeyRow, Member, MemberState, Order, OrderState, Outcome, OwnScript, RequestKind, RequestRow,
    SignerRow, StoreError, Stored,
};

/// Columns of an order, for SELECT.
pub(super) const ORDER: &str = "id, external_id, wallet, address, script, amount_sat, note, state, created_at, created_by, created_person, \
     approval_hash, approved_at, approved_by, family, blocked_kind, blocked_code, blocked_until, blocked_message, refused_code, changed_at";

pub(super) fn sat(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn unsigned<T: TryFrom<i64>>(row: &SqliteRow, table: &'static str, column: &'static str) -> Stored<T> {
    let value: i64 = row.try_get(column)?;
    T::try_from(value).map_err(|_| StoreError::Damaged { table, column, value: value.to_string() })
}

pub(super) fn unsigned_or_none<T: TryFrom<i64>>(row: &SqliteRow, table: &'static str, column: &'static str) -> Stored<Option<T>> {
    let value: Option<i64> = row.try_get(column)?;
    value.map(|v| T::try_from(v).map_err(|_| StoreError::Damaged { table, column, value: v.to_string() })).transpose()
}

pub(super) fn parsed<T: FromStr>(row: &SqliteRow, table: &'static str, column: &'static str) -> Stored<T> {
    let value: String = row.try_get(column)?;
    value.parse().map_err(|_| StoreError::Damaged { table, column, value })
}

pub(super) fn parsed_or_none<T: FromStr>(row: &SqliteRow, table: &'static str, column: &'static str) -> Stored<Option<T>> {
    let value: Option<String> = row.try_get(column)?;
    value.map(|value| value.parse().map_err(|_| StoreError::Damaged { table, column, value })).transpose()
}

pub(super) fn word<T>(row: &SqliteRow, table: &'static str, column: &'static str, parse: impl Fn(&str) -> Option<T>) -> Stored<T> {
    let value: String = row.try_get(column)?;
    parse(&value).ok_or(StoreError::Damaged { table, column, value })
}

pub(super) fn script(row: &SqliteRow, column: &'static str) -> Stored<ScriptBuf> {
    Ok(ScriptBuf::from_bytes(row.try_get(column)?))
}

fn blocked(row: &SqliteRow) -> Stored<Option<Blocked>> {
    let kind: Option<String> = row.try_get("blocked_kind")?;
    let Some(kind) = kind else { return Ok(None) };
    Ok(Some(Blocked {
        kind: BlockedKind::parse(&kind).ok_or(StoreError::Damaged { table: "orders", column: "blocked_kind", value: kind })?,
        code: row.try_get::<Option<String>, _>("blocked_code")?.unwrap_or_default(),
        until: row.try_get("blocked_until")?,
        message: row.try_get("blocked_message")?,
    }))
}

pub(super) fn order(row: &SqliteRow) -> Stored<Order> {
    Ok(Order {
        id: row.try_get("id")?,
        external_id: row.try_get("external_id")?,
        wallet: row.try_get("wallet")?,
        address: row.try_get("address")?,
        script: script(row, "script")?,
        amount_sat: unsigned(row, "orders", "amount_sat")?,
        note: row.try_get("note")?,
        state: word(row, "orders", "state", OrderState::parse)?,
        created_at: row.try_get("created_at")?,
        created_by: row.try_get("created_by")?,
        created_person: row.try_get("created_person")?,
        approval_hash: row.try_get("approval_hash")?,
        approved_at: row.try_get("approved_at")?,
        approved_by: row.try_get("approved_by")?,
        family: row.try_get("family")?,
        blocked: blocked(row)?,
        refused_code: row.try_get("refused_code")?,
        changed_at: row.try_get("changed_at")?,
    })
}

pub(super) fn family(row: &SqliteRow) -> Stored<Family> {
    Ok(Family {
        id: row.try_get("id")?,
        wallet: row.try_get("wallet")?,
        anchor: bitcoin::OutPoint { txid: parsed(row, "family", "anchor_txid")?, vout: unsigned(row, "family", "anchor_vout")? },
        change: (unsigned(row, "family", "change_branch")?, unsigned(row, "family", "change_index")?),
        state: word(row, "family", "state", FamilyState::parse)?,
        created_at: row.try_get("created_at")?,
    })
}

pub(super) fn member(row: &SqliteRow) -> Stored<Member> {
    Ok(Member {
        id: row.try_get("id")?,
        family: row.try_get("family")?,
        state: word(row, "member", "state", MemberState::parse)?,
        unsigned_txid: parsed(row, "member", "unsigned_txid")?,
        psbt: row.try_get("psbt")?,
        fee_sat: unsigned(row, "member", "fee_sat")?,
        weight_wu: unsigned(row, "member", "weight_wu")?,
        created_at: row.try_get("created_at")?,
        txid: parsed_or_none(row, "member", "txid")?,
        final_tx: row.try_get("final_tx")?,
        broadcast_at: row.try_get("broadcast_at")?,
        broadcast_height: unsigned_or_none(row, "member", "broadcast_height")?,
        not_before: row.try_get("not_before")?,
    })
}

pub(super) fn own_script(row: &SqliteRow) -> Stored<OwnScript> {
    Ok(OwnScript {
        wallet: row.try_get("wallet")?,
        branch: unsigned(row, "script", "branch")?,
        index: unsigned(row, "script", "idx")?,
        script: script(row, "script")?,
        public_key: row.try_get("public_key")?,
    })
}

pub(super) fn signer(row: &SqliteRow) -> Stored<SignerRow> {
    Ok(SignerRow {
        name: row.try_get("name")?,
        tls_pin: row.try_get("tls_pin")?,
        client_auth: row.try_get("client_auth")?,
        signer_key: parsed(row, "signer", "signer_key")?,
        last_pull_at: row.try_get("last_pull_at")?,
        heartbeat_at: row.try_get("heartbeat_at")?,
        heartbeat: row.try_get("heartbeat")?,
    })
}

pub(super) fn request(row: &SqliteRow) -> Stored<RequestRow> {
    let outcome: Option<String> = row.try_get("outcome")?;
    Ok(RequestRow {
        id: row.try_get("id")?,
        signer: row.try_get("signer")?,
        wallet: row.try_get("wallet")?,
        kind: word(row, "signer_request", "kind", RequestKind::parse)?,
        member: row.try_get("member")?,
        body: row.try_get("body")?,
        not_before: row.try_get("not_before")?,
        reply: row.try_get("reply")?,
        outcome: outcome
            .map(|o| Outcome::parse(&o).ok_or(StoreError::Damaged { table: "signer_request", column: "outcome", value: o }))
            .transpose()?,
    })
}

pub(super) fn key(row: &SqliteRow) -> Stored<KeyRow> {
    Ok(KeyRow {
        id: row.try_get("id")?,
        person: row.try_get("person")?,
        hash: row.try_get("hash")?,
        scopes: row.try_get("scopes")?,
        created_at: row.try_get("created_at")?,
        revoked_at: row.try_get("revoked_at")?,
    })
}
