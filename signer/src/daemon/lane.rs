//! A queue with a fixed number of threads behind it. What may take long never stands before what must not wait:
//! signatures, address batches and everything else have a lane each, so a freeze gets through while a token hangs.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Jobs in the order in which they came. How many there can be is bounded by what connections may have in flight.
pub(super) struct Lane<J> {
    queue: Mutex<Queue<J>>,
    ready: Condvar,
    done: Condvar,
}

struct Queue<J> {
    jobs: VecDeque<J>,
    sleeping: usize,
    working: usize,
    open: bool,
}

impl<J: Send + 'static> Lane<J> {
    /// Starts the threads.
    pub(super) fn start(
        name: &str,
        threads: usize,
        work: impl Fn(J) + Send + Sync + 'static,
    ) -> io::Result<(Arc<Self>, Vec<JoinHandle<()>>)> {
        let queue = Queue { jobs: VecDeque::new(), sleeping: 0, working: 0, open: true };
        let lane = Arc::new(Self { queue: Mutex::new(queue), ready: Condvar::new(), done: Condvar::new() });
        let work = Arc::new(work);
        let mut handles = Vec::new();
        for n in 0..threads {
            let (lane, work) = (Arc::clone(&lane), Arc::clone(&work));
            handles.push(thread::Builder::new().name(format!("{name}-{n}")).spawn(move || lane.run(&*work))?);
        }
        Ok((lane, handles))
    }

    fn lock(&self) -> MutexGuard<'_, Queue<J>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a job; gives it back when the lane is closed.
    pub(super) fn push(&self, job: J) -> Result<(), J> {
        let mut queue = self.lock();
        if !queue.open {
            return Err(job);
        }
        queue.jobs.push_back(job);
        let wake = queue.sleeping > 0;
        drop(queue);
        if wake {
            self.ready.notify_one();
        }
        Ok(())
    }

    fn run(&self, work: &(impl Fn(J) + ?Sized)) {
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                queue.working = queue.working.saturating_add(1);
                drop(queue);
                // One request that meets a bug must not take the thread, and with it the lane, from all others.
                if catch_unwind(AssertUnwindSafe(|| work(job))).is_err() {
                    log::error!("a request met a bug in the signer and was dropped; please report the lines above");
                }
                queue = self.lock();
                queue.working = queue.working.saturating_sub(1);
                if !queue.open && queue.working == 0 && queue.jobs.is_empty() {
                    self.done.notify_all();
                }
            } else if queue.open {
                queue.sleeping = queue.sleeping.saturating_add(1);
                queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
                queue.sleeping = queue.sleeping.saturating_sub(1);
            } else {
                return;
            }
        }
    }

    /// Takes no more jobs; the threads end when the queue is empty.
    pub(super) fn close(&self) {
        self.lock().open = false;
        self.ready.notify_all();
    }

    /// After [`Self::close`]: waits until nothing is queued or worked on; false when that took longer than allowed.
    pub(super) fn drained(&self, within: Duration) -> bool {
        let started = Instant::now();
        let mut queue = self.lock();
        while queue.working > 0 || !queue.jobs.is_empty() {
            let Some(left) = within.checked_sub(started.elapsed()) else { return false };
            queue = self.done.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_closed_lane_finishes_what_it_has_and_takes_no_more() {
        let (sender, seen) = mpsc::channel();
        let (lane, handles) = Lane::start("test", 2, move |n: u32| sender.send(n).unwrap()).unwrap();
        for n in 0..100 {
            lane.push(n).unwrap();
        }
        lane.close();
        assert_eq!(lane.push(100), Err(100));
        assert!(lane.drained(Duration::from_secs(30)));
        for handle in handles {
            handle.join().unwrap();
        }
        drop(lane);
        let mut seen: Vec<u32> = seen.iter().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_job_that_panics_does_not_take_the_thread_with_it() {
        let (sender, seen) = mpsc::channel();
        let work = move |n: u32| if n == 0 { panic!("on purpose") } else { sender.send(n).unwrap() };
        let (lane, _handles) = Lane::start("test", 1, work).unwrap();
        lane.push(0).unwrap();
        lane.push(1).unwrap();
        assert_eq!(seen.recv_timeout(Duration::from_secs(30)), Ok(1));
        lane.close();
    }
}
