//! The rows of the last entries, in memory. Each is found by a hash, so in the file each would take a page of its own: they are
//! written there many at a time, and after a crash they are read again from the journal.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::{
    LedgerError,
    entry::{ChargeEntry, Entry, FamilyEntry, OUTPOINT_LEN},
    tables::{self, sql},
};

/// A row of `charges`, but for its txid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ChargeRow {
    pub(super) wallet: String,
    pub(super) charge: u64,
    pub(super) outflow_sat: u64,
}

/// A row of `families`, but for its outpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FamilyRow {
    pub(super) wallet: String,
    pub(super) founder: u64,
    pub(super) charge_sat: u64,
    pub(super) members: u64,
    pub(super) leader: u64,
}

/// Outpoint in 36 bytes.
pub(super) type Coin = [u8; OUTPOINT_LEN];

/// See the module. Where the file has a row of the same key, this one counts.
#[derive(Debug, Default)]
pub(super) struct Recent {
    charges: BTreeMap<[u8; 32], Vec<ChargeRow>>,
    families: BTreeMap<Coin, Vec<FamilyRow>>,
    /// The entry that holds a charge's signatures.
    signatures: BTreeMap<u64, u64>,
}

impl Recent {
    /// What an entry changes in the tables that are written late.
    pub(super) fn derive(&mut self, db: &Connection, seq: u64, entry: &Entry) -> Result<(), LedgerError> {
        match entry {
            Entry::Charged(charge) => self.derive_charge(db, seq, charge),
            Entry::Signed(charge, _) => {
                self.signatures.insert(*charge, seq);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn derive_charge(&mut self, db: &Connection, seq: u64, charge: &ChargeEntry) -> Result<(), LedgerError> {
        let damaged = |what: &str| LedgerError::Damaged { seq, what: what.into() };
        let (FamilyEntry::Founds(input) | FamilyEntry::Joins(_, input)) = charge.family;
        let coin = charge.outpoint(input).ok_or_else(|| damaged("its family's outpoint is not one of its inputs"))?;
        let families = self.families.entry(coin).or_default();
        match charge.family {
            FamilyEntry::Founds(_) => families.push(FamilyRow {
                wallet: charge.wallet.clone(),
                founder: seq,
                charge_sat: charge.outflow_sat,
                members: 1,
                leader: seq,
            }),
            FamilyEntry::Joins(founder, _) => {
                let is_it = |family: &FamilyRow| family.founder == founder && family.wallet == charge.wallet;
                if !families.iter().any(is_it) {
                    families.extend(tables::family_in_file(db, &coin, &charge.wallet, founder)?);
                }
                let family = families.iter_mut().find(|family| is_it(family));
                let family = family.ok_or_else(|| damaged("it joins a family that there is not"))?;
                family.members = family.members.saturating_add(1);
                if charge.outflow_sat > family.charge_sat {
                    (family.charge_sat, family.leader) = (charge.outflow_sat, seq);
                }
            }
        }
        let charges = self.charges.entry(charge.txid).or_default();
        charges.retain(|same| same.wallet != charge.wallet);
        charges.push(ChargeRow { wallet: charge.wallet.clone(), charge: seq, outflow_sat: charge.outflow_sat });
        Ok(())
    }

    /// Who was charged for a transaction.
    pub(super) fn charges(&self, txid: &[u8; 32]) -> &[ChargeRow] {
        self.charges.get(txid).map_or(&[], Vec::as_slice)
    }

    /// The families of an outpoint.
    pub(super) fn families(&self, coin: &Coin) -> &[FamilyRow] {
        self.families.get(coin).map_or(&[], Vec::as_slice)
    }

    /// The number of the entry that holds a charge's signatures.
    pub(super) fn signatures(&self, charge: u64) -> Option<u64> {
        self.signatures.get(&charge).copied()
    }

    /// Writes all rows into the file's tables, and forgets them.
    pub(super) fn write(&mut self, db: &Connection) -> Result<(), LedgerError> {
        let Self { charges, families, signatures } = std::mem::take(self);
        let mut insert = db.prepare_cached("INSERT OR REPLACE INTO charges VALUES (?1, ?2, ?3, ?4)")?;
        for (txid, rows) in charges {
            for row in rows {
                insert.execute(params![txid, row.wallet, sql(row.charge), sql(row.outflow_sat)])?;
            }
        }
        let mut insert = db.prepare_cached("INSERT OR REPLACE INTO families VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
        for (coin, rows) in families {
            for row in rows {
                let (founder, leader) = (sql(row.founder), sql(row.leader));
                insert.execute(params![coin, row.wallet, founder, sql(row.charge_sat), sql(row.members), leader])?;
            }
        }
        let mut insert = db.prepare_cached("INSERT OR REPLACE INTO signatures VALUES (?1, ?2)")?;
        for (charge, entry) in signatures {
            insert.execute(params![sql(charge), sql(entry)])?;
        }
        Ok(())
    }
}
