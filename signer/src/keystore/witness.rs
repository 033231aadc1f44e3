//! Whether an empty find means that there is nothing, or that the token has gone: a token that has gone finds nothing, reports no
//! error and still tells its serial number. So one object that it held is remembered, and asked for.

use std::sync::Mutex;

use cryptoki::object::{Attribute, AttributeType, ObjectHandle};

use super::{
    fault::Fault,
    module::lock,
    work::{Connection, Token},
};

/// An object of the token, any.
#[derive(Default)]
pub(super) struct Witness {
    object: Mutex<Option<(Connection, ObjectHandle)>>,
}

impl Token<'_> {
    /// Remembers an object that the token holds.
    pub(super) fn remember(&self, object: ObjectHandle) {
        *lock(&self.witness.object) = Some((self.connection, object));
    }

    /// Remembers any object; a new token has none.
    pub(super) fn remember_any(&self) -> Result<(), Fault> {
        let first = self.session.iter_objects(&[Attribute::Token(true)])?.next().transpose()?;
        if let Some(object) = first {
            self.remember(object);
        }
        Ok(())
    }

    /// To be asked before a find that found nothing is believed.
    ///
    /// # Errors
    /// The token has gone.
    pub(super) fn prove_presence(&self) -> Result<(), Fault> {
        self.context.get_token_info(self.connection.slot)?;
        let witness = *lock(&self.witness.object);
        if let Some((connection, object)) = witness
            && connection == self.connection
            && self.session.get_attributes(object, &[AttributeType::Class])?.is_empty()
        {
            return Err(Fault::lost("what the token held is no longer there"));
        }
        Ok(())
    }
}
