//! The corpus of hostile transactions, `softhsm-test/hostile/`: each file is a test of its own. It goes through the signer's own
//! library up to the ledger's charge; those that say so also go over the socket of a running signer with a token.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

mod bips;
mod build;
mod case;
mod known_attacks;
mod library;
mod socket;
mod wallets;
mod words;

use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};

use self::case::Case;

pub(crate) use wallets::folder as corpus;

fn main() {
    let arguments = Arguments::from_args();
    let cases: Arc<Vec<(String, Case)>> = Arc::new(case::read_all(&corpus()).unwrap_or_else(|e| panic!("{e:#}")));
    let mut trials: Vec<Trial> = (0..cases.len())
        .map(|n| {
            let cases = Arc::clone(&cases);
            Trial::test(cases[n].0.clone(), move || library::run(&cases[n].0, &cases[n].1).map_err(failed))
        })
        .collect();
    trials.push({
        let cases = Arc::clone(&cases);
        Trial::test("no_refusal_of_the_analysis_is_without_a_case", move || library::every_code(&cases).map_err(failed))
    });
    trials.push({
        let cases = Arc::clone(&cases);
        Trial::test("every_test_that_known_attacks_names_exists", move || known_attacks::every_named_test_exists(&cases).map_err(failed))
    });
    trials.push(Trial::test("over_the_socket_of_a_signer_with_a_token_nothing_of_it_is_charged", move || {
        socket::run(&cases).map_err(failed)
    }));
    type Plain = (&'static str, fn() -> anyhow::Result<()>);
    let plain: [Plain; 4] = [
        ("bips::every_vector_is_answered_and_no_invalid_one_is_signed", bips::every_vector),
        ("bips::a_taproot_key_path_vector_is_analysed_right_and_its_signature_is_over_our_digest", bips::taproot_key_path),
        ("bips::a_taproot_script_path_vector_is_analysed_right_and_its_signature_is_over_our_digest", bips::taproot_script_path),
        ("bips::a_legacy_vector_is_proven_by_its_previous_transaction_and_a_multisig_one_without_is_refused", bips::legacy_and_multisig),
    ];
    trials.extend(plain.map(|(name, test)| Trial::test(name, move || test().map_err(failed))));
    libtest_mimic::run(&arguments, trials).exit();
}

#[allow(clippy::needless_pass_by_value)]
fn failed(error: anyhow::Error) -> Failed {
    format!("{error:#}").into()
}
