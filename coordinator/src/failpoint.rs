//! Places where a test ends the process: on either side of every commit and of every call that leaves the machine. In an ordinary build
//! they are nothing.
//!
//! With the cargo feature `failpoints` the variable `FAILPOINTS` names them as the crate `fail` reads it, for example
//! `FAILPOINTS=batch.before=return` or `FAILPOINTS=reply.after=2*off->return`: the process then kills itself as `kill -9` would.

/// Passes the place `step.side`.
#[cfg(feature = "failpoints")]
pub fn hit(step: &str, side: &str) {
    let _ = fail::eval(&format!("{step}.{side}"), |_| {
        // What a power cut does: no destructor runs, nothing is flushed.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        loop {
            std::thread::park();
        }
    });
}

/// Passes the place `step.side`.
#[cfg(not(feature = "failpoints"))]
pub fn hit(_step: &str, _side: &str) {}

#[cfg(test)]
pub(crate) use plan::CrashPlan;

#[cfg(test)]
mod plan {
    use std::sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    };

    use crate::store::StoreError;

    /// Lets the n-th passing of a commit's side fail, for tests inside one process.
    #[derive(Debug, Clone)]
    pub(crate) struct CrashPlan(Arc<AtomicI64>);

    impl Default for CrashPlan {
        fn default() -> Self {
            Self(Arc::new(AtomicI64::new(i64::MAX)))
        }
    }

    impl CrashPlan {
        /// Fails at the n-th passing from now, from 0; each commit is passed twice, before and after.
        pub(crate) fn at(&self, n: i64) {
            self.0.store(n, Ordering::SeqCst);
        }

        /// Never fails any more. True: it had not failed yet.
        pub(crate) fn disarm(&self) -> bool {
            self.0.swap(i64::MAX, Ordering::SeqCst) >= 0
        }

        fn pass(&self, step: &'static str) -> Result<(), StoreError> {
            // After the crash nothing is done until the plan is disarmed: the process is dead.
            if self.0.fetch_sub(1, Ordering::SeqCst) <= 0 { Err(StoreError::Crashed(step)) } else { Ok(()) }
        }

        pub(crate) fn before(&self, step: &'static str) -> Result<(), StoreError> {
            self.pass(step)
        }

        pub(crate) fn after(&self, step: &'static str) -> Result<(), StoreError> {
            self.pass(step)
        }
    }
}
