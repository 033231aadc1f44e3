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

/// Something to do, once.
pub(crate) type Task = Box<dyn FnOnce() + Send>;

/// Tasks in the order in which they came. How many there can be is bounded by what connections may have in flight.
pub(crate) struct Lane {
    queue: Mutex<Queue>,
    ready: Condvar,
    done: Condvar,
}

struct Queue {
    tasks: VecDeque<Task>,
    sleeping: usize,
    working: usize,
    open: bool,
}

/// Does a task. One request that meets a bug must not take the thread from all others.
pub(crate) fn guarded(task: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(task)).is_err() {
        log::error!("a request met a bug in the signer and was dropped; please report the lines above");
    }
}

impl Lane {
    /// Starts the threads.
    pub(crate) fn start(name: &str, threads: usize) -> io::Result<(Arc<Self>, Vec<JoinHandle<()>>)> {
        let queue = Queue { tasks: VecDeque::new(), sleeping: 0, working: 0, open: true };
        let lane = Arc::new(Self { queue: Mutex::new(queue), ready: Condvar::new(), done: Condvar::new() });
        let mut handles = Vec::new();
        for n in 0..threads {
            let lane = Arc::clone(&lane);
            handles.push(thread::Builder::new().name(format!("{name}-{n}")).spawn(move || lane.run())?);
        }
        Ok((lane, handles))
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a task. When the lane is closed it is done here and now.
    pub(crate) fn push(&self, task: Task) {
        let mut queue = self.lock();
        if !queue.open {
            drop(queue);
            return guarded(task);
        }
        queue.tasks.push_back(task);
        let wake = queue.sleeping > 0;
        drop(queue);
        if wake {
            self.ready.notify_one();
        }
    }

    fn run(&self) {
        let mut queue = self.lock();
        loop {
            if let Some(task) = queue.tasks.pop_front() {
                queue.working = queue.working.saturating_add(1);
                drop(queue);
                guarded(task);
                queue = self.lock();
                queue.working = queue.working.saturating_sub(1);
                if !queue.open && queue.working == 0 && queue.tasks.is_empty() {
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

    /// Queues no more tasks; the threads end when the queue is empty.
    pub(crate) fn close(&self) {
        self.lock().open = false;
        self.ready.notify_all();
    }

    /// After [`Self::close`]: waits until nothing is queued or worked on; false when that took longer than allowed.
    pub(crate) fn drained(&self, within: Duration) -> bool {
        let started = Instant::now();
        let mut queue = self.lock();
        while queue.working > 0 || !queue.tasks.is_empty() {
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
    fn a_closed_lane_finishes_what_it_has_and_leaves_the_rest_to_whoever_asks() {
        let (sender, seen) = mpsc::channel();
        let (lane, handles) = Lane::start("test", 2).unwrap();
        let push = |n: u32| {
            let sender = sender.clone();
            lane.push(Box::new(move || sender.send((n, thread::current().id())).unwrap()));
        };
        (0..100).for_each(push);
        lane.close();
        push(100);
        assert!(lane.drained(Duration::from_secs(30)));
        for handle in handles {
            handle.join().unwrap();
        }
        let mut seen: Vec<(u32, bool)> = seen.try_iter().map(|(n, on)| (n, on == thread::current().id())).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..=100).map(|n| (n, n == 100)).collect::<Vec<_>>());
    }

    #[test]
    fn a_task_that_panics_does_not_take_the_thread_with_it() {
        let (sender, seen) = mpsc::channel();
        let (lane, _handles) = Lane::start("test", 1).unwrap();
        lane.push(Box::new(|| panic!("on purpose")));
        lane.push(Box::new(move || sender.send(()).unwrap()));
        assert_eq!(seen.recv_timeout(Duration::from_secs(30)), Ok(()));
        lane.close();
    }
}
