//! `cargo xtask`: set up, test, bench.
mod measurement;
fn main() {
    let _: Option<measurement::Measurement> = None;
}
