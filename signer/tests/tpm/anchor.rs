//! A ledger's anchor in the TPM's memory.

use postern_signer::{
    anchor::{Anchor as _, AnchorError, AnchorState, NV_INDEX_DEFAULT, NvAnchor},
    tpm::AuthValue,
};

use crate::board::{Board, auth};

const STATE: AnchorState = AnchorState { ledger: [7; 16], bound_sat: 123_456, commands: 3, clean: Some([9; 16]) };

fn anchor_with(board: &Board, auth: AuthValue) -> NvAnchor {
    NvAnchor::new(board.tpm(), auth, NV_INDEX_DEFAULT)
}

fn anchor(board: &Board) -> NvAnchor {
    anchor_with(board, auth("right"))
}

#[test]
fn an_anchor_remembers_the_last_write_over_power_cuts() {
    let mut board = Board::new("anchor");
    let mut anchored = anchor(&board);
    assert_eq!(anchored.read().unwrap(), None);
    for round in 0..5 {
        let state = AnchorState { bound_sat: STATE.bound_sat + round, clean: (round % 2 == 0).then_some([9; 16]), ..STATE };
        anchored.write(&state).unwrap();
        assert_eq!(anchored.read().unwrap(), Some(state));
        board.swtpm.kill().unwrap();
        assert!(matches!(anchored.read(), Err(AnchorError::Unavailable(_))));
        assert!(matches!(anchored.write(&STATE), Err(AnchorError::Unavailable(_))));
        board.swtpm.start_again().unwrap();
        assert_eq!(anchor(&board).read().unwrap(), Some(state));
        assert_eq!(anchored.writes().unwrap(), round + 1);
    }
}

#[test]
fn an_anchor_that_somebody_replaced_is_not_believed() {
    let board = Board::new("replaced");
    anchor(&board).write(&STATE).unwrap();
    let index = format!("{NV_INDEX_DEFAULT:#x}");
    // The machine's owner can remove an index; the ledger then refuses, since it knows that it was anchored.
    board.swtpm.tool(&["nvundefine", "-C", "o", &index]).unwrap();
    assert_eq!(anchor(&board).read().unwrap(), None);
    // One that the owner may write as well.
    let weak = "authread|authwrite|ownerwrite|ownerread";
    board.swtpm.tool(&["nvdefine", "-C", "o", &index, "-s", "160", "-a", weak]).unwrap();
    let error = anchor(&board).read().unwrap_err();
    assert!(error.to_string().contains("not defined as the signer defines it"), "{error}");
    assert!(anchor(&board).write(&STATE).is_err());
    board.swtpm.tool(&["nvundefine", "-C", "o", &index]).unwrap();
    // One of the same form under somebody else's auth value.
    board.swtpm.tool(&["nvdefine", "-C", "o", &index, "-s", "160", "-a", "authread|authwrite", "-p", "stranger"]).unwrap();
    std::fs::write(board.run.join("zeros"), [0; 160]).unwrap();
    board.swtpm.tool(&["nvwrite", &index, "-P", "stranger", "-i", "zeros"]).unwrap();
    let mut fooled = anchor(&board);
    for _ in 0..3 {
        let error = fooled.read().unwrap_err();
        assert!(error.to_string().contains("refused the auth value"), "{error}");
    }
    assert_eq!(board.tpm().with(|tpm| tpm.lockout()).unwrap().failed, 1, "a refused auth value is tried once");
}

#[test]
fn whoever_has_no_auth_value_neither_reads_nor_writes_the_anchor() {
    let board = Board::new("no_auth");
    anchor(&board).write(&STATE).unwrap();
    let index = format!("{NV_INDEX_DEFAULT:#x}");
    std::fs::write(board.run.join("zeros"), [0; 160]).unwrap();
    for arguments in [
        vec!["nvread", &index],
        vec!["nvwrite", &index, "-i", "zeros"],
        vec!["nvread", "-C", "o", &index],
        vec!["nvwrite", "-C", "o", &index, "-i", "zeros"],
    ] {
        assert!(board.swtpm.tool(&arguments).is_err(), "{arguments:?}");
    }
    assert!(anchor_with(&board, auth("wrong")).write(&STATE).is_err());
    assert_eq!(anchor(&board).read().unwrap(), Some(STATE));
}

#[test]
fn a_tpm_whose_memory_was_put_back_holds_the_old_anchor() {
    // What a virtual TPM cannot protect from; `postern-signer check` says so.
    let mut board = Board::new("put_back");
    let mut anchored = anchor(&board);
    anchored.write(&STATE).unwrap();
    board.swtpm.kill().unwrap();
    let memory = board.swtpm.memory().unwrap();
    board.swtpm.start_again().unwrap();
    anchored.write(&AnchorState { bound_sat: 999_999, ..STATE }).unwrap();
    board.swtpm.kill().unwrap();
    board.swtpm.put_back(&memory).unwrap();
    board.swtpm.start_again().unwrap();
    assert_eq!(anchored.read().unwrap(), Some(STATE));
}
