//! The accountant must see theft: signatures made here by plain keys, past every limit.
#![allow(clippy::unwrap_used)]
use bitcoin::{
    Amount, Network, PrivateKey, Sequence, TxIn, absolute::LockTime, hashes::Hash as _, secp256k1::SecretKey, transaction::Version,
};
use postern_protocol::reply::SignaturePlace;

use super::*;

const BURST_SAT: u64 = 100_000;

fn bounds() -> Vec<Bound> {
    vec![Bound { scope: "signer".into(), wallet: None, burst_sat: BURST_SAT, amount_sat: 1, per_ms: 3_600_000, total_sat: Some(150_000) }]
}

/// A transaction and what it spends.
type Payment = (Transaction, Vec<TxOut>);

struct Thief {
    secp: Secp256k1<All>,
    key: PrivateKey,
}

impl Thief {
    fn new() -> Self {
        Self { secp: Secp256k1::new(), key: PrivateKey::new(SecretKey::from_slice(&[7; 32]).unwrap(), Network::Regtest) }
    }

    fn script(&self) -> ScriptBuf {
        ScriptBuf::new_p2wpkh(&self.key.public_key(&self.secp).wpubkey_hash().unwrap())
    }

    /// A transaction that takes 60,000 sat of each of these coins somewhere else and the rest of 40,000 back.
    fn transaction(&self, coins: &[u8], to: u8) -> Payment {
        let out = |sat, script_pubkey| TxOut { value: Amount::from_sat(sat), script_pubkey };
        let outpoint = |n: &u8| OutPoint { txid: Txid::from_byte_array([*n; 32]), vout: 0 };
        let input = coins.iter().map(|n| TxIn { previous_output: outpoint(n), sequence: Sequence::MAX, ..TxIn::default() }).collect();
        let away = ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::from_byte_array([to; 20]));
        let output = vec![out(60_000 * coins.len() as u64, away), out(40_000 * coins.len() as u64, self.script())];
        let spent = coins.iter().map(|_| out(100_000, self.script())).collect();
        (Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output }, spent)
    }

    fn sign(&self, (transaction, spent): &Payment, inputs: &[u32], sighash_type: EcdsaSighashType) -> Vec<InputSignature> {
        let sign = |input: &u32| {
            let place = *input as usize;
            let mut cache = SighashCache::new(transaction);
            let digest = cache.p2wpkh_signature_hash(place, &spent[place].script_pubkey, spent[place].value, sighash_type).unwrap();
            let signature = self.secp.sign_ecdsa(&Message::from(digest), &self.key.inner);
            let signature = ecdsa::Signature { signature, sighash_type }.to_vec();
            let public_key = self.key.public_key(&self.secp).to_bytes();
            InputSignature { input: *input, public_key, signature, place: SignaturePlace::Partial }
        };
        inputs.iter().map(sign).collect()
    }

    fn settle(&self, signed: &[(&Payment, Vec<InputSignature>)]) -> Account {
        let book = Book::new();
        for ((transaction, spent), signatures) in signed {
            let ask = book.ask("hot", transaction, spent);
            book.answer(ask, Outcome::Signed(signatures.clone()));
        }
        book.settle(&bounds(), &HashSet::from([self.script()])).unwrap()
    }
}

const ALL: EcdsaSighashType = EcdsaSighashType::All;

#[test]
fn two_payments_that_can_both_confirm_are_over_the_rate_and_three_over_the_total() {
    let thief = Thief::new();
    let payments: Vec<_> = [1, 2, 3].map(|coin| thief.transaction(&[coin], 9)).to_vec();
    let signed: Vec<_> = payments.iter().map(|p| (p, thief.sign(p, &[0], ALL))).collect();
    let one = thief.settle(&signed[..1]);
    assert_eq!((one.complete, one.outflow_sat, one.gained_sat), (1, 60_000, 0));
    let two = thief.settle(&signed[..2]);
    assert_eq!((two.outflow_sat, two.gained_sat), (120_000, 20_000));
    assert!(two.broken[0].starts_with("rate of signer"), "{:?}", two.broken);
    let three = thief.settle(&signed);
    assert_eq!((three.outflow_sat, three.gained_sat), (180_000, 80_000));
    assert!(three.broken.iter().any(|b| b.starts_with("total of signer: 30000")), "{:?}", three.broken);
}

#[test]
fn of_payments_that_share_a_coin_one_counts_and_a_chain_of_them_counts_its_ends() {
    let thief = Thief::new();
    let twice: Vec<_> = [1, 2].map(|to| thief.transaction(&[5], to)).to_vec();
    let signed: Vec<_> = twice.iter().map(|p| (p, thief.sign(p, &[0], ALL))).collect();
    assert_eq!(thief.settle(&signed).outflow_sat, 60_000);
    // (1,2) (2,3) (3,4): the first and the last can both confirm.
    let chain: Vec<_> = [[1, 2], [2, 3], [3, 4]].map(|coins| thief.transaction(&coins, 9)).to_vec();
    let signed: Vec<_> = chain.iter().map(|p| (p, thief.sign(p, &[0, 1], ALL))).collect();
    let account = thief.settle(&signed);
    assert_eq!((account.outflow_sat, account.tangle, account.gained_sat), (240_000, 3, 140_000));
}

#[test]
fn halves_of_two_answers_make_one_transaction_and_a_half_alone_makes_none() {
    let thief = Thief::new();
    let payment = thief.transaction(&[1, 2], 9);
    let halves = [0, 1].map(|input| thief.sign(&payment, &[input], ALL));
    let one = thief.settle(&[(&payment, halves[0].clone())]);
    assert_eq!((one.complete, one.partial, one.outflow_sat), (0, 1, 0));
    let both = thief.settle(&[(&payment, halves[0].clone()), (&payment, halves[1].clone())]);
    assert_eq!((both.complete, both.outflow_sat, both.gained_sat), (1, 120_000, 20_000));
}

#[test]
fn a_signature_that_leaves_something_open_or_is_none_is_seen() {
    let thief = Thief::new();
    let payment = thief.transaction(&[1], 9);
    let blank = thief.settle(&[(&payment, thief.sign(&payment, &[0], EcdsaSighashType::None))]);
    assert_eq!((blank.blank, blank.complete), (1, 0));
    let other = thief.transaction(&[2], 9);
    let wrong = thief.settle(&[(&payment, thief.sign(&other, &[0], ALL))]);
    assert_eq!((wrong.wrong, wrong.complete), (1, 0));
}

#[test]
fn a_charge_lies_between_the_question_and_the_answer_and_time_gives_room_at_the_rate() {
    let spend = |from_ms: u64, until_ms: u64, coin: u8| Spend {
        wallet: "hot".into(),
        coins: vec![OutPoint { txid: Txid::from_byte_array([coin; 32]), vout: 0 }],
        outflow_sat: 80_000,
        from: Duration::from_millis(from_ms),
        until: Duration::from_millis(until_ms),
    };
    // 100 sat a millisecond: the second may come 600 ms after the first.
    let bound = Bound { amount_sat: 100_000, per_ms: 1_000, ..bounds().remove(0) };
    let over = |spends: &[Spend]| held_against(&spends.iter().collect::<Vec<_>>(), &bound, &[]).unwrap().over_rate_sat;
    assert_eq!(over(&[spend(10, 20, 1), spend(300, 610, 2)]), 0);
    assert_eq!(over(&[spend(10, 20, 1), spend(300, 609, 2)]), 100);
    // It was asked for early and signed late: it may have been charged early, so the time before counts.
    assert_eq!(over(&[spend(0, 500, 1), spend(300, 600, 2)]), 0);
}
