//! Each field that a BIP defines is read in the form that the BIP gives it, and in no other.

use std::sync::LazyLock;

use bitcoin::psbt::raw;
use postern_protocol::refusal::RefusalCode::{self, PsbtMalformed, PsbtVersion};

use super::{
    super::psbt::Psbt,
    site::{Site, Spend},
};

/// What follows a field's type, and its value.
type Field = (Vec<u8>, Vec<u8>);

#[derive(Debug, Clone, Copy)]
enum Place {
    Global,
    Input,
    Output,
}
use Place::{Global, Input, Output};

/// What the reader says to a good PSBT with one field more.
fn read(place: Place, type_value: u8, (key, value): Field) -> Result<(), RefusalCode> {
    static GOOD: LazyLock<bitcoin::Psbt> = LazyLock::new(|| Site::hot().psbt(&Spend::usual()));
    let mut psbt = GOOD.clone();
    let fields = match place {
        Global => &mut psbt.unknown,
        Input => &mut psbt.inputs[1].unknown,
        Output => &mut psbt.outputs[0].unknown,
    };
    fields.insert(raw::Key { type_value, key }, value);
    Psbt::read(&psbt.serialize()).map(|_| ()).map_err(|refusal| refusal.code)
}

/// A field of which only the lengths matter.
fn sized(key: usize, value: usize) -> Field {
    (vec![7; key], vec![7; value])
}

/// Bytes that begin with `first`, as a public key does.
fn key(first: u8, length: usize) -> Vec<u8> {
    let mut key = vec![7; length];
    key[0] = first;
    key
}

/// Compressed keys, one behind the other.
fn keys(firsts: &[u8]) -> Vec<u8> {
    firsts.iter().flat_map(|first| key(*first, 33)).collect()
}

/// One by one: fingerprints and paths, good ones and others.
fn origins() -> [Vec<Field>; 2] {
    let of = |first, length, value| (key(first, length), vec![7; value]);
    let bad = [of(2, 33, 0), of(2, 33, 3), of(2, 33, 6), of(4, 33, 4), of(2, 65, 4), of(5, 33, 4), of(2, 32, 4)];
    [vec![of(2, 33, 4), of(3, 33, 8), of(4, 65, 12)], bad.into()]
}

/// The same behind leaf hashes (BIP 371).
fn tap_origins() -> [Vec<Field>; 2] {
    let of = |key: usize, hashes: u8, rest: usize| (vec![7; key], [vec![hashes], vec![7; usize::from(hashes) * 32 + rest]].concat());
    let bad = [of(32, 0, 0), of(32, 0, 3), of(32, 1, 6), of(31, 0, 4), of(33, 0, 4), sized(32, 0), sized(32, 8)];
    [vec![of(32, 0, 4), of(32, 1, 4), of(32, 2, 12)], bad.into()]
}

/// Who takes part in an aggregate key (BIP 373).
fn participants() -> [Vec<Field>; 2] {
    let bad = [(keys(&[2]), vec![7]), (keys(&[2]), keys(&[2, 4])), (keys(&[2]), [keys(&[2]), vec![7]].concat())];
    let bad = [bad.to_vec(), vec![(keys(&[4]), keys(&[2])), (vec![], keys(&[2]))]].concat();
    [vec![(keys(&[2]), vec![]), (keys(&[3]), keys(&[3, 2, 3]))], bad]
}

/// A participant's nonce or signature, of so many bytes (BIP 373).
fn of_participant(length: usize) -> [Vec<Field>; 2] {
    let of = |firsts: &[u8], leaf: usize, length: usize| ([keys(firsts), vec![7; leaf]].concat(), vec![7; length]);
    let bad = [of(&[2, 3], 0, length - 1), of(&[2, 3], 0, length + 1), of(&[4, 3], 0, length), of(&[2, 4], 0, length)];
    let bad = [bad.to_vec(), vec![of(&[2, 3], 31, length), of(&[2], 0, length)]].concat();
    [vec![of(&[2, 3], 0, length), of(&[3, 2], 32, length)], bad]
}

/// Bytes without a key: these lengths are good, those are not.
fn plain(good: &[usize], bad: &[usize]) -> [Vec<Field>; 2] {
    let of = |lengths: &[usize]| lengths.iter().map(|length| sized(0, *length)).collect::<Vec<_>>();
    [of(good), [of(bad), vec![sized(1, good[0]), sized(33, good[0])]].concat()]
}

fn partial_signatures() -> [Vec<Field>; 2] {
    let of = |first, length, value| (key(first, length), vec![7; value]);
    let bad = [of(2, 33, 8), of(2, 33, 74), of(4, 33, 71), of(3, 65, 71), of(7, 33, 71)];
    [vec![of(2, 33, 9), of(3, 33, 73), of(4, 65, 71)], bad.into()]
}

fn trees() -> [Vec<Field>; 2] {
    let leaf = |depth: u8| vec![depth, 0xc0, 1, 0x51];
    let good = [leaf(0), [leaf(1), leaf(1)].concat(), leaf(128)];
    let bad = [vec![], leaf(129), [leaf(1), leaf(129)].concat(), vec![1], vec![0, 0xc0, 2, 0x51]];
    [good.map(|tree| (vec![], tree)).into(), [bad.map(|tree| (vec![], tree)).to_vec(), vec![(vec![7], leaf(0))]].concat()]
}

#[test]
fn every_known_field_is_read_in_the_form_that_its_bip_gives_it_and_in_no_other() {
    let xpubs = [vec![sized(78, 4), sized(78, 16)], vec![sized(78, 0), sized(78, 6), sized(77, 4), sized(79, 4)]];
    let hashes = |n| [vec![sized(n, 0), sized(n, 50)], vec![sized(0, 5), sized(n - 1, 5), sized(n + 1, 5)]];
    let script_signatures = vec![sized(64, 63), sized(64, 66), sized(63, 64), sized(65, 65)];
    let steps = |n: usize| 33 + 32 * n;
    let leaves = vec![sized(33, 0), sized(1, 1), sized(32, 1), sized(34, 1), sized(steps(129), 1)];
    let mut cases = vec![
        (Global, 0x01, xpubs),
        (Input, 0x02, partial_signatures()),
        (Input, 0x03, plain(&[4], &[0, 3, 5])),
        (Input, 0x06, origins()),
        (Input, 0x0a, hashes(20)),
        (Input, 0x0b, hashes(32)),
        (Input, 0x0c, hashes(20)),
        (Input, 0x0d, hashes(32)),
        (Input, 0x13, plain(&[64, 65], &[0, 63, 66])),
        (Input, 0x14, [vec![sized(64, 64), sized(64, 65)], script_signatures]),
        (Input, 0x15, [vec![sized(33, 1), sized(steps(1), 9), sized(steps(128), 1)], leaves]),
        (Input, 0x16, tap_origins()),
        (Input, 0x17, plain(&[32], &[0, 31, 33])),
        (Input, 0x18, plain(&[32], &[0, 31, 33])),
        (Input, 0x1a, participants()),
        (Input, 0x1b, of_participant(66)),
        (Input, 0x1c, of_participant(32)),
        (Output, 0x02, origins()),
        (Output, 0x05, plain(&[32], &[0, 31, 33])),
        (Output, 0x06, trees()),
        (Output, 0x07, tap_origins()),
        (Output, 0x08, participants()),
    ];
    cases.extend([0x04, 0x05, 0x07, 0x08, 0x09, 0x19].map(|kind| (Input, kind, plain(&[0, 9], &[]))));
    cases.extend([0x00, 0x01].map(|kind| (Output, kind, plain(&[0, 9], &[]))));
    // The good ones are there already.
    cases.extend([0x00, 0x01].map(|kind| (Input, kind, [vec![], vec![sized(1, 9)]])));
    for (place, kind, [good, bad]) in cases {
        good.into_iter().for_each(|field| assert_eq!(read(place, kind, field.clone()), Ok(()), "{place:?} {kind:#x} {field:?}"));
        bad.into_iter().for_each(|field| assert_eq!(read(place, kind, field.clone()), Err(PsbtMalformed), "{place:?} {kind:#x} {field:?}"));
    }
}

#[test]
fn fields_of_version_2_are_told_from_unknown_ones() {
    for (place, theirs, unknown) in [
        (Global, &[0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08][..], [0x09, 0xfc]),
        (Input, &[0x0e, 0x0f, 0x10, 0x11, 0x12, 0x1d, 0x1e], [0x1f, 0xfc]),
        (Output, &[0x03, 0x04, 0x09, 0x0a], [0x0b, 0xfc]),
    ] {
        theirs.iter().for_each(|kind| assert_eq!(read(place, *kind, sized(0, 4)), Err(PsbtVersion), "{place:?} {kind:#x}"));
        unknown.iter().for_each(|kind| assert_eq!(read(place, *kind, sized(1, 4)), Ok(()), "{place:?} {kind:#x}"));
    }
    let version = |version: &[u8]| read(Global, 0xfb, (vec![], version.into()));
    assert_eq!([version(&[0; 4]), version(&[2, 0, 0, 0])], [Ok(()), Err(PsbtVersion)]);
    assert_eq!([version(&[0; 3]), version(&[0; 5]), read(Global, 0xfb, (vec![7], vec![0; 4]))], [Err(PsbtMalformed); 3]);
}
