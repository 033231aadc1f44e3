//! The first room: is this a request of this protocol, and may this peer ask it? Nothing else is parsed before that.
//! The size cap was applied before the frame was read ([`postern_protocol::frame::body_length`]).

use minicbor::Decoder;
use postern_protocol::{
    PROTOCOL_VERSION, canonical,
    refusal::{Refusal, RefusalCode},
    request::{Request, RequestBody},
};

/// What a peer of the socket may do. Follows from its user id (SO_PEERCRED), never from what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Carries requests of others: gets signatures, addresses and refusal codes, and no numbers.
    Gate,
    /// A person on this machine: sees everything.
    Operator,
}

/// A request that its asker may ask.
#[derive(Debug, PartialEq, Eq)]
pub struct Admitted {
    id: u64,
    role: Role,
    body: RequestBody,
}

impl Admitted {
    /// The asker's id for it.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Who asks.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// What is asked.
    #[must_use]
    pub fn body(&self) -> &RequestBody {
        &self.body
    }

    /// What is asked, to keep.
    #[must_use]
    pub fn into_body(self) -> RequestBody {
        self.body
    }
}

/// A frame that was not let in, with the id for the reply: the request's when it could be read, else 0.
#[derive(Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The id.
    pub id: u64,
    /// Why.
    pub refusal: Refusal,
}

/// Version and id, which stand first in every request of any version; enough to answer one that is not understood.
#[must_use]
pub fn header(frame: &[u8]) -> Option<(u16, u64)> {
    let mut decoder = Decoder::new(frame);
    decoder.map().ok()??;
    if decoder.u8().ok()? != 0 {
        return None;
    }
    let version = decoder.u16().ok()?;
    if decoder.u8().ok()? != 1 {
        return None;
    }
    Some((version, decoder.u64().ok()?))
}

/// Reads a frame's body as a request, in the one canonical form, and lets in what this role may ask.
///
/// # Errors
/// [`Rejected`] with `frame_malformed`, `version_unsupported` or `not_permitted`; never panics, whatever the bytes.
pub fn admit(frame: &[u8], role: Role) -> Result<Admitted, Rejected> {
    let (version, id) = header(frame).ok_or_else(|| Rejected {
        id: 0,
        refusal: Refusal::new(
            RefusalCode::FrameMalformed,
            "the frame does not begin with a version and an id; is this a client of the signer's socket?",
        ),
    })?;
    let reject = |code, message: String| Rejected { id, refusal: Refusal::new(code, message) };
    if version != PROTOCOL_VERSION {
        let message = format!("the request speaks version {version}, this signer {PROTOCOL_VERSION}; update the older side");
        return Err(reject(RefusalCode::VersionUnsupported, message));
    }
    let request: Request =
        canonical::from_slice(frame).map_err(|e| reject(RefusalCode::FrameMalformed, format!("the frame is not a request: {e}")))?;
    if !may(role, &request.body) {
        let message = format!("{} is for operators; this peer is a gate ([socket] operators says who may)", name(&request.body));
        return Err(reject(RefusalCode::NotPermitted, message));
    }
    Ok(Admitted { id, role, body: request.body })
}

/// Whether a role may ask this. A command proves itself by the managers' signatures, so anybody may carry it.
fn may(role: Role, body: &RequestBody) -> bool {
    match body {
        RequestBody::Status => role == Role::Operator,
        RequestBody::Sign(_)
        | RequestBody::Addresses(_)
        | RequestBody::Wallets
        | RequestBody::Heartbeat(_)
        | RequestBody::Command(_)
        | RequestBody::Attest(_) => true,
    }
}

/// What a request is called in the log.
#[must_use]
pub fn name(body: &RequestBody) -> &'static str {
    match body {
        RequestBody::Sign(_) => "sign",
        RequestBody::Addresses(_) => "addresses",
        RequestBody::Wallets => "wallets",
        RequestBody::Status => "status",
        RequestBody::Heartbeat(_) => "heartbeat",
        RequestBody::Command(_) => "command",
        RequestBody::Attest(_) => "attest",
    }
}

/// The wallet that a request names, if any; unchecked, for the log.
#[must_use]
pub fn wallet(body: &RequestBody) -> Option<&str> {
    match body {
        RequestBody::Sign(request) => Some(&request.wallet),
        RequestBody::Addresses(request) => Some(&request.wallet),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_protocol::request::SignRequest;
    use proptest::prelude::*;

    fn request(id: u64, body: RequestBody) -> Vec<u8> {
        canonical::to_vec(&Request { version: PROTOCOL_VERSION, id, body })
    }

    fn sign() -> RequestBody {
        RequestBody::Sign(SignRequest { wallet: "hot".into(), psbt: vec![1, 2, 3] })
    }

    #[test]
    fn a_canonical_request_is_admitted_and_only_operators_ask_for_the_status() {
        assert_eq!(admit(&request(9, sign()), Role::Gate).unwrap().body(), &sign());
        assert_eq!(admit(&request(9, RequestBody::Status), Role::Operator).unwrap().id(), 9);
        let no = admit(&request(9, RequestBody::Status), Role::Gate).unwrap_err();
        assert_eq!((no.id, no.refusal.code), (9, RefusalCode::NotPermitted));
    }

    #[test]
    fn another_version_is_named_as_such_even_when_its_body_is_unknown() {
        let mut frame = Vec::new();
        minicbor::Encoder::new(&mut frame)
            .map(3)
            .unwrap()
            .u8(0)
            .unwrap()
            .u16(2)
            .unwrap()
            .u8(1)
            .unwrap()
            .u64(77)
            .unwrap()
            .u8(2)
            .unwrap()
            .str("new")
            .unwrap();
        let no = admit(&frame, Role::Operator).unwrap_err();
        assert_eq!((no.id, no.refusal.code), (77, RefusalCode::VersionUnsupported));
    }

    #[test]
    fn a_request_in_another_encoding_or_with_bytes_behind_it_is_malformed() {
        let good = request(5, sign());
        let mut longer = good.clone();
        longer.push(0);
        let no = admit(&longer, Role::Gate).unwrap_err();
        assert_eq!((no.id, no.refusal.code), (5, RefusalCode::FrameMalformed));
        // The id 5 written in two bytes instead of one is the same value and not the same bytes.
        let mut padded = good.clone();
        let at = padded.iter().position(|b| *b == 5).unwrap();
        padded.splice(at..=at, [0x18, 5]);
        let no = admit(&padded, Role::Gate).unwrap_err();
        assert_eq!((no.id, no.refusal.code), (5, RefusalCode::FrameMalformed));
    }

    proptest! {
        #[test]
        fn no_frame_makes_the_intake_panic(frame in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = admit(&frame, Role::Gate);
        }

        #[test]
        fn no_changed_byte_of_a_request_makes_the_intake_panic(at in 0usize..20, byte in any::<u8>()) {
            let mut frame = request(1, sign());
            if let Some(b) = frame.get_mut(at) { *b = byte; }
            let _ = admit(&frame, Role::Gate);
        }
    }
}
