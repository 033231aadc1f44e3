//! Refused for what goes out: change that is none, scripts that nobody can be sure of, fees that are a payment.

use bitcoin::{ScriptBuf, opcodes::all::OP_RETURN, script::Builder};
use postern_protocol::refusal::RefusalCode::{self, *};
use postern_testkit::spend::{self, Output};

use super::{COIN_SAT, Case, World, somebody};

pub(super) const CASES: &[Case] = &[
    case(ChangeBeyondGap, "hot", |w| {
        let change = w.scripts("hot").at(1, 5_000)?;
        w.spend("hot", vec![Output::Pay(somebody(), 100_000), Output::Own(Box::new(change), COIN_SAT - 101_000)])
    }),
    case(ChangeTooMany, "hot", |w| {
        let change = (0..11).map(|n| Ok(Output::Own(Box::new(w.scripts("hot").at(1, n)?), 10_000))).collect::<anyhow::Result<Vec<_>>>()?;
        w.spend("hot", [vec![Output::Pay(somebody(), COIN_SAT - 120_000)], change].concat())
    }),
    // Our key's fingerprint and path beside a script that is somebody else's.
    case(ChangeClaimFalse, "hot", |w| {
        w.changed("hot", |p| p.unsigned_tx.output[1].script_pubkey = ScriptBuf::new_p2wsh(&somebody().wscript_hash()))
    }),
    case(OutputScriptForbidden, "hot", |w| w.pay("hot", ScriptBuf::from_bytes(vec![0x51]), 100_000)),
    case(OutputOpReturn, "hot", |w| w.pay("hot", Builder::new().push_opcode(OP_RETURN).push_slice(b"postern").into_script(), 0)),
    case(OutputDust, "hot", |w| w.pay("hot", somebody(), 200)),
    case(FeeAbsolute, "feecap", |w| w.spend("feecap", vec![Output::Pay(somebody(), COIN_SAT - 30_000)])),
    case(FeeRate, "feerate", |w| w.spend("feerate", vec![Output::Pay(somebody(), COIN_SAT - 30_000)])),
    case(FeeShare, "feeshare", |w| w.spend("feeshare", vec![Output::Pay(somebody(), COIN_SAT - 30_000)])),
    case(DestinationForbidden, "listed", |w| w.pay("listed", somebody(), 100_000)),
];

const fn case(code: RefusalCode, wallet: &'static str, psbt: fn(&World) -> anyhow::Result<Vec<u8>>) -> Case {
    Case { code, wallet, psbt }
}

impl World {
    /// A coin of the wallet spent to these outputs.
    fn spend(&self, wallet: &str, outputs: Vec<Output>) -> anyhow::Result<Vec<u8>> {
        Ok(spend::psbt(&[self.coin(wallet)?], &outputs)?.serialize())
    }

    /// A payment with change and a small fee.
    fn pay(&self, wallet: &str, script: ScriptBuf, sat: u64) -> anyhow::Result<Vec<u8>> {
        let change = Output::Own(Box::new(self.scripts(wallet).at(1, 0)?), COIN_SAT - sat - 2_000);
        self.spend(wallet, vec![Output::Pay(script, sat), change])
    }
}
