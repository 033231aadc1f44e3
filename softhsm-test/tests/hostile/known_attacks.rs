//! `docs/known-attacks.md` and `docs/threat-model.md` name tests: they exist.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use crate::case::Case;

/// Folders that hold tests.
const SOURCES: [&str; 6] = ["protocol", "signer", "link", "coordinator", "softhsm-test", "xtask"];
const PLAIN: &str = include_str!("main.rs");

/// Each name in the last column of the page's tables is a case of the corpus or a test function.
pub(crate) fn every_named_test_exists(cases: &[(String, Case)]) -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("a workspace")?;
    let page = fs::read_to_string(workspace.join("docs/known-attacks.md"))?;
    let mut functions = BTreeSet::new();
    for source in SOURCES {
        collect(&workspace.join(source), &mut functions)?;
    }
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| attack |")).collect();
    ensure!(rows.len() > 35, "{} attacks", rows.len());
    let mut missing = vec![];
    for row in rows {
        let tests = row.trim_end_matches('|').rsplit('|').next().context("columns")?;
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        ensure!(!names.is_empty(), "no test is named: {row}");
        for name in names {
            let known = functions.contains(name) || cases.iter().any(|(case, _)| case == name) || PLAIN.contains(&format!("\"{name}\""));
            if !known {
                missing.push(name.to_owned());
            }
        }
    }
    // There, tests stand among other words; no key of a configuration is as long.
    let model = fs::read_to_string(workspace.join("docs/threat-model.md"))?;
    let named = model.split('`').skip(1).step_by(2).filter(|name| name.matches('_').count() > 2);
    let named: Vec<&str> = named.collect();
    ensure!(named.len() > 20, "{} tests in the threat model", named.len());
    missing.extend(named.into_iter().filter(|name| !functions.contains(*name)).map(str::to_owned));
    ensure!(missing.is_empty(), "no such tests: {missing:?}");
    Ok(())
}

/// Names of functions that a test attribute, or a macro that makes tests (`proptest!`), stands before.
fn collect(folder: &Path, into: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, into)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path)?;
            let mut attribute = false;
            for line in text.lines().map(str::trim) {
                attribute |= line.contains("#[test]") || line.starts_with("#[tokio::test");
                if let Some((_, after)) = line.split_once("fn ")
                    && attribute
                {
                    into.insert(after.split(['(', '<']).next().unwrap_or_default().to_owned());
                    attribute = false;
                }
            }
        }
    }
    Ok(())
}
