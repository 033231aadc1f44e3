//! The fuzz targets (`fuzz/`) on everything that they ever found, and on their seeds: what broke once does not break again.
//! [`docs/fuzzing.md`](../../../docs/fuzzing.md) says how to fuzz.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../../fuzz/src/lib.rs"]
mod targets;

mod seeds;

use rand::{Rng as _, RngCore as _, SeedableRng as _, rngs::StdRng};
use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("fuzz")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn whatever_was_found_by_fuzzing_breaks_nothing_any_more() {
    let mut broken = vec![];
    for (target, run) in targets::TARGETS {
        let seeds = files(&fuzz().join("corpus").join(target));
        assert!(!seeds.is_empty(), "target {target} has no seeds");
        for file in seeds.into_iter().chain(files(&fuzz().join("findings").join(target))) {
            let bytes = fs::read(&file).unwrap();
            if catch_unwind(AssertUnwindSafe(|| run(&bytes))).is_err() {
                broken.push(file);
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Almost good PSBTs from random plans, without a fuzzer's guidance: `POSTERN_RANDOM_PLANS=1000000` tries as many.
#[test]
fn random_plans_of_payments_make_no_untrue_analysis() {
    let count = std::env::var("POSTERN_RANDOM_PLANS").map_or(3_000, |text| text.parse().unwrap());
    let mut random = StdRng::seed_from_u64(7);
    let mut signed = 0;
    for _ in 0..count {
        let mut bytes = vec![0; random.gen_range(20..600)];
        random.fill_bytes(&mut bytes);
        // Small numbers are what most fields mean something for.
        bytes.iter_mut().for_each(|byte| *byte &= if random.gen_bool(0.5) { 0x03 } else { 0xff });
        signed += u32::from(targets::structured::run_and_tell(&bytes));
    }
    assert!(signed > count / 100, "{signed} of {count} plans were good enough to be signed, so little was compared");
}

#[test]
fn every_finding_and_seed_belongs_to_a_target() {
    for kind in ["corpus", "findings"] {
        for folder in files(&fuzz().join(kind)).into_iter().filter(|path| path.is_dir()) {
            let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
            assert!(targets::TARGETS.iter().any(|(target, _)| *target == name), "{}", folder.display());
        }
    }
}
