//! A short text in the token: a private data object whose label is the text, since labels are what tokens let one change.
//!
//! On a hardware token it is as durable as the token. SoftHSM neither syncs nor writes atomically: there this shows that the
//! way works, and protects nothing.

use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};

use super::{KeystoreError, Pkcs11Keystore, fault::Fault, work::Token};
use crate::anchor::{AnchorError, LabelStore};

/// Longest text: what small tokens can hold.
pub const LABEL_MAX: usize = 128;

/// One named text in a token.
#[derive(Debug, Clone)]
pub struct TokenLabel {
    keystore: Pkcs11Keystore,
    application: String,
    seen: bool,
}

impl TokenLabel {
    pub(super) fn new(keystore: Pkcs11Keystore, name: &str) -> Self {
        Self { keystore, application: format!("postern-label:{name}"), seen: false }
    }

    /// The text; none when the token is there and has none.
    ///
    /// # Errors
    /// [`KeystoreError::Unavailable`], [`KeystoreError::Pin`]; [`KeystoreError::KeyMismatch`] when there are two.
    pub fn read(&self) -> Result<Option<String>, KeystoreError> {
        let application = self.application.clone();
        let mut read = self.keystore.core().run(1, true, move |token, _| match find(token, &application)? {
            Some(object) => text(token, object).map(Some),
            None => Ok(None),
        })?;
        Ok(read.pop().flatten())
    }

    /// Replaces the text. It has been read back when this returns.
    ///
    /// # Errors
    /// As [`Self::read`]; [`KeystoreError::KeyMissing`] when there is none to replace: it is made by [`Self::create`] only.
    pub fn write(&self, new: &str) -> Result<(), KeystoreError> {
        let (application, new) = (self.application.clone(), checked(new)?);
        self.keystore.core().run_once(move |token| {
            let object = find(token, &application)?.ok_or_else(|| KeystoreError::KeyMissing {
                wallet: application.clone(),
                reason: "the token has no such data object".into(),
            })?;
            token.session.update_attributes(object, &[Attribute::Label(new.clone().into_bytes())])?;
            same(&text(token, object)?, &new)
        })
    }

    /// Makes the object with its first text.
    ///
    /// # Errors
    /// As [`Self::read`]; [`KeystoreError::Exists`].
    pub fn create(&self, first: &str) -> Result<(), KeystoreError> {
        let (application, first) = (self.application.clone(), checked(first)?);
        self.keystore.core().run_once(move |token| {
            if find(token, &application)?.is_some() {
                return Err(KeystoreError::Exists { what: format!("the data object `{application}` on the token") }.into());
            }
            let object = token.session.create_object(&[
                Attribute::Class(ObjectClass::DATA),
                Attribute::Application(application.clone().into_bytes()),
                Attribute::Label(first.clone().into_bytes()),
                Attribute::Token(true),
                Attribute::Private(true),
                Attribute::Modifiable(true),
                Attribute::Value(Vec::new()),
            ])?;
            token.remember(object);
            same(&text(token, object)?, &first)
        })
    }
}

/// For the anchor. The object is made by the first write, and never again by one that has seen it: a token on which it is gone is
/// not the token that it was.
impl LabelStore for TokenLabel {
    fn read(&mut self) -> Result<Option<String>, AnchorError> {
        let read = Self::read(self).map_err(|error| failed(&error))?;
        self.seen |= read.is_some();
        Ok(read)
    }

    fn write(&mut self, label: &str) -> Result<(), AnchorError> {
        let written = match Self::write(self, label) {
            Err(KeystoreError::KeyMissing { .. }) if !self.seen => self.create(label),
            outcome => outcome,
        };
        written.map_err(|error| failed(&error))?;
        self.seen = true;
        Ok(())
    }
}

fn failed(error: &KeystoreError) -> AnchorError {
    match error {
        KeystoreError::Pin { .. } => AnchorError::Closed(error.to_string()),
        _ => AnchorError::Unavailable(error.to_string()),
    }
}

fn checked(text: &str) -> Result<String, KeystoreError> {
    if text.is_empty() || text.len() > LABEL_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        return Err(KeystoreError::Token {
            function: "C_SetAttributeValue".into(),
            reason: format!("a label is 1 to {LABEL_MAX} printable ASCII characters"),
        });
    }
    Ok(text.into())
}

fn same(read: &str, written: &str) -> Result<(), Fault> {
    if read == written { Ok(()) } else { Err(Fault::call("C_SetAttributeValue", "the label does not read back as written")) }
}

fn find(token: &Token<'_>, application: &str) -> Result<Option<ObjectHandle>, Fault> {
    let template = [Attribute::Class(ObjectClass::DATA), Attribute::Application(application.as_bytes().to_vec())];
    match token.session.find_objects(&template)?.as_slice() {
        [] => {
            token.prove_presence()?;
            Ok(None)
        }
        [object] => Ok(Some(*object)),
        _ => Err(KeystoreError::KeyMismatch { wallet: application.into(), reason: "the token has two such data objects".into() }.into()),
    }
}

fn text(token: &Token<'_>, object: ObjectHandle) -> Result<String, Fault> {
    let attributes = token.session.get_attributes(object, &[AttributeType::Label])?;
    let Some(Attribute::Label(label)) = attributes.into_iter().next() else {
        return Err(Fault::lost("the data object has no label"));
    };
    String::from_utf8(label).map_err(|_| Fault::call("C_GetAttributeValue", "the label is not UTF-8"))
}
