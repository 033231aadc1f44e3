//! What was tried how often, and what came back.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use postern_protocol::refusal::RefusalCode;
use serde::Serialize;

/// A kind of attack, what must come back at least once, and whether a signature would be a victory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// Any of these.
    pub(crate) expected: &'static [&'static str],
    /// Nothing of this may ever be signed.
    pub(crate) never: bool,
}

/// A row of the table.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) kind: &'static str,
    pub(crate) tried: u64,
    pub(crate) came_back: BTreeMap<String, u64>,
}

/// Counts.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    rows: Mutex<BTreeMap<&'static str, Row>>,
}

impl Tally {
    fn rows(&self) -> MutexGuard<'_, BTreeMap<&'static str, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One attempt and what came of it.
    pub(crate) fn count(&self, kind: Kind, came_back: &str) {
        let mut rows = self.rows();
        let row = rows.entry(kind.name).or_insert_with(|| Row { kind: kind.name, tried: 0, came_back: BTreeMap::new() });
        row.tried += 1;
        *row.came_back.entry(came_back.into()).or_default() += 1;
    }

    pub(crate) fn refused(&self, kind: Kind, code: RefusalCode) {
        self.count(kind, code.as_str());
    }

    /// The table.
    pub(crate) fn table(&self) -> Vec<Row> {
        self.rows().values().cloned().collect()
    }

    pub(crate) fn total(&self) -> u64 {
        self.rows().values().map(|row| row.tried).sum()
    }

    /// How often something came back, whatever was tried.
    pub(crate) fn times(&self, came_back: &str) -> u64 {
        self.rows().values().filter_map(|row| row.came_back.get(came_back)).sum()
    }

    /// What was not really tried, and what should never have been signed.
    pub(crate) fn complaints(&self, kinds: &[Kind]) -> Vec<String> {
        let rows = self.rows();
        let mut complaints = vec![];
        for kind in kinds {
            let came_back = rows.get(kind.name).map(|row| &row.came_back);
            if came_back.is_none_or(|came| kind.expected.iter().all(|expected| !came.contains_key(*expected))) {
                complaints.push(format!("`{}` was not really tried: {} never came back", kind.name, kind.expected.join(" or ")));
            }
            if kind.never && came_back.is_some_and(|came| came.contains_key("signed")) {
                complaints.push(format!("`{}` was signed", kind.name));
            }
        }
        complaints
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIE: Kind = Kind { name: "lie", expected: &["refused.amount_conflict"], never: true };

    #[test]
    fn an_attack_that_was_never_tried_or_never_answered_as_expected_is_complained_about() {
        let tally = Tally::default();
        assert_eq!(tally.complaints(&[LIE]).len(), 1);
        tally.count(LIE, "lost");
        assert_eq!(tally.complaints(&[LIE]).len(), 1);
        tally.refused(LIE, RefusalCode::AmountConflict);
        assert_eq!(tally.complaints(&[LIE]), Vec::<String>::new());
        tally.count(LIE, "signed");
        assert_eq!(tally.complaints(&[LIE]), ["`lie` was signed"]);
    }
}
