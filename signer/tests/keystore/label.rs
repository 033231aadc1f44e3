//! The ledger's anchor in the token.

use postern_signer::{
    anchor::{Anchor as _, AnchorState, LabelAnchor, LabelStore},
    keystore::{KeystoreError, LABEL_MAX},
};

use crate::site::on_token;

#[test]
fn an_anchor_is_read_back_from_the_token_by_the_next_process() {
    on_token("label::an_anchor_is_read_back_from_the_token_by_the_next_process", |site| {
        let keystore = site.open();
        let mut anchor = LabelAnchor::new(keystore.label("ledger"));
        assert_eq!(anchor.read().unwrap(), None);
        let mut state = AnchorState { ledger: [7; 16], bound_sat: u64::MAX, commands: u64::MAX, clean: Some([9; 16]) };
        for bound_sat in [1, 2, u64::MAX] {
            state.bound_sat = bound_sat;
            anchor.write(&state).unwrap();
            assert_eq!(anchor.read().unwrap(), Some(state));
        }
        assert_eq!(keystore.label("other").read().unwrap(), None, "names are apart");
        let objects = site.token_files();
        drop((anchor, keystore));

        let mut anchor = LabelAnchor::new(site.open().label("ledger"));
        assert_eq!(anchor.read().unwrap(), Some(state));
        anchor.write(&AnchorState { bound_sat: 5, ..state }).unwrap();
        assert_eq!(site.token_files(), objects, "written in place");
    });
}

#[test]
fn a_label_that_was_there_is_never_made_anew() {
    on_token("label::a_label_that_was_there_is_never_made_anew", |site| {
        let keystore = site.open();
        let mut label = keystore.label("ledger");
        LabelStore::write(&mut label, "first").unwrap();
        let (_context, session) = site.thief();
        let object = session.find_objects(&[cryptoki::object::Attribute::Label(b"first".to_vec())]).unwrap()[0];
        session.destroy_object(object).unwrap();
        assert!(LabelStore::write(&mut label, "second").is_err());
        assert_eq!(keystore.label("ledger").read().unwrap(), None);
    });
}

#[test]
fn a_text_that_is_no_label_is_refused() {
    on_token("label::a_text_that_is_no_label_is_refused", |site| {
        let label = site.open().label("ledger");
        label.create("x").unwrap();
        assert!(matches!(label.create("y"), Err(KeystoreError::Exists { .. })));
        for text in ["", "a\nb", "ä", &"x".repeat(LABEL_MAX + 1)] {
            assert!(matches!(label.write(text), Err(KeystoreError::Token { .. })), "{text:?}");
        }
        assert_eq!(label.read().unwrap().as_deref(), Some("x"));
    });
}
