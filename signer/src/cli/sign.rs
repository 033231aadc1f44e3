//! `postern sign`: a file is signed by the running signer, within its limits. Asking again is free.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use bitcoin::{Psbt, PublicKey, TapLeafHash, XOnlyPublicKey, ecdsa, hashes::Hash as _, taproot};
use postern_protocol::{
    reply::{InputSignature, ReplyBody, SignaturePlace, Signed},
    request::{RequestBody, SignRequest},
};

use super::{
    Ending,
    paint::{GOOD, paint},
    psbt_file,
    site::{Answer, Site, say_refusal, unexpected},
};

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Sign {
    /// The transaction, binary or base64; `-` is standard input.
    psbt: PathBuf,
    /// Where to write it with its signatures, in the form it came in; without it, base64 to standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The wallet that spends; needed when the signer has several.
    #[arg(long, value_name = "NAME")]
    wallet: Option<String>,
}

impl Sign {
    pub(super) fn run(&self, site: &Site) -> Result<Ending> {
        let file = psbt_file::read(&self.psbt)?;
        let mut psbt = Psbt::deserialize(&file.bytes).with_context(|| {
            let name = self.psbt.display();
            format!("{name} is not a PSBT of version 0 (Bitcoin Core 31 and later write it with psbt_version=0)")
        })?;
        let wallet = match &self.wallet {
            Some(name) => name.clone(),
            None => only_wallet(site)?,
        };
        let signed = match site.ask(RequestBody::Sign(SignRequest { wallet, psbt: file.bytes }))? {
            Answer::Reply(ReplyBody::Signed(signed)) => signed,
            Answer::Refused(refusal) => return Ok(say_refusal(&refusal)),
            Answer::Reply(_) => return unexpected(),
        };
        insert(&mut psbt, &signed)?;
        psbt_file::write(self.output.as_deref(), file.form, &psbt.serialize())?;
        anstream::eprintln!("{} {} of {} inputs.", paint(GOOD, "Signed"), count_inputs(&signed), psbt.inputs.len());
        Ok(Ending::Done)
    }
}

fn only_wallet(site: &Site) -> Result<String> {
    let wallets = match site.ask(RequestBody::Wallets)? {
        Answer::Reply(ReplyBody::Wallets(wallets)) => wallets,
        Answer::Refused(refusal) => bail!("the signer does not say which wallets it has: {refusal}"),
        Answer::Reply(_) => return unexpected(),
    };
    match wallets.as_slice() {
        [only] => Ok(only.name.clone()),
        [] => bail!("the signer has no wallet"),
        several => {
            let names: Vec<&str> = several.iter().map(|wallet| wallet.name.as_str()).collect();
            bail!("the signer has several wallets; say which one spends: --wallet {}", names.join(" | "))
        }
    }
}

/// Puts the signatures where they belong.
fn insert(psbt: &mut Psbt, signed: &Signed) -> Result<()> {
    if signed.unsigned_txid != psbt.unsigned_tx.compute_txid().to_byte_array() {
        bail!("the signer signed another transaction than the file's; nothing is written");
    }
    for signature in &signed.signatures {
        let index = usize::try_from(signature.input)?;
        let input = psbt.inputs.get_mut(index).with_context(|| format!("the signer signed an input {index} that does not exist"))?;
        let InputSignature { public_key, signature, place, .. } = signature;
        match place {
            SignaturePlace::Partial => {
                input.partial_sigs.insert(PublicKey::from_slice(public_key)?, ecdsa::Signature::from_slice(signature)?);
            }
            SignaturePlace::TapKey => input.tap_key_sig = Some(taproot::Signature::from_slice(signature)?),
            SignaturePlace::TapLeaf(leaf) => {
                let place = (XOnlyPublicKey::from_slice(public_key)?, TapLeafHash::from_byte_array(*leaf));
                input.tap_script_sigs.insert(place, taproot::Signature::from_slice(signature)?);
            }
        }
    }
    Ok(())
}

fn count_inputs(signed: &Signed) -> usize {
    signed.signatures.iter().map(|signature| signature.input).collect::<std::collections::BTreeSet<_>>().len()
}
