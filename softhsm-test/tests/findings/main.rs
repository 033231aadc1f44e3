//! The fuzz targets (`fuzz/`) on everything that they ever found, and on their seeds: what broke once does not break again.
//! [`docs/fuzzing.md`](../../../docs/fuzzing.md) says how to fuzz.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../../fuzz/src/lib.rs"]
mod targets;

mod seeds;

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

#[test]
fn every_finding_and_seed_belongs_to_a_target() {
    for kind in ["corpus", "findings"] {
        for folder in files(&fuzz().join(kind)).into_iter().filter(|path| path.is_dir()) {
            let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
            assert!(targets::TARGETS.iter().any(|(target, _)| *target == name), "{}", folder.display());
        }
    }
}
