//! `postern wallet reseal`: a seed sealed by the TPM is sealed to another boot as well, so that an update does not lock it.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::PcrValue;
use super::{configured, new::open};
use crate::{
    cli::{
        Ending,
        paint::{HEAD, paint},
        site::Site,
    },
    keystore::OpenKeystore,
    tpm::pcr_meaning,
};

/// Arguments.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Reseal {
    /// The wallet.
    name: String,
    /// What a PCR will hold after the boot to come, as `11=HEX`. Those that are not named are taken as they are now.
    #[arg(long, value_name = "PCR=SHA256")]
    pcr: Vec<PcrValue>,
    /// What the seed was sealed to before no longer opens it.
    #[arg(long)]
    only: bool,
}

impl Reseal {
    pub(super) fn run(&self, site: &Site) -> Result<Ending> {
        let config = site.config()?;
        let wallet = configured(&config, &self.name)?;
        let Some(table) = config.keystores.get(&wallet.keystore).and_then(|table| table.tpm()) else {
            bail!("[wallet.{}] is on keystore {}, which is no TPM; only a TPM seals to a boot", self.name, wallet.keystore);
        };
        let coming: BTreeMap<u8, [u8; 32]> = self.pcr.iter().map(|PcrValue(index, value)| (*index, *value)).collect();
        if let Some(stranger) = coming.keys().find(|index| !table.pcrs.iter().any(|known| known == **index)) {
            bail!("PCR {stranger} is none of those in [keystore.{}] pcrs: {}", wallet.keystore, table.pcrs);
        }
        let OpenKeystore::Tpm(keystore) = open(&config, &wallet.keystore)? else { bail!("[keystore.{}] is no TPM", wallet.keystore) };
        let before = if self.only { "instead of" } else { "besides" };
        anstream::eprintln!("Unsealing the seed of {}, and sealing it anew {before} what it is sealed to.", self.name);
        let sealed = keystore.reseal(&self.name, config.network, &coming, self.only)?;
        for (index, value) in &sealed.0 {
            let when = if coming.contains_key(index) { "to come" } else { "as it is now" };
            say!("PCR {index} ({}) {}  {when}", pcr_meaning(*index), hex::encode(value));
        }
        anstream::eprintln!("{}", paint(HEAD, format!("Back up seed-{}.sealed again.", self.name)));
        Ok(Ending::Done)
    }
}
