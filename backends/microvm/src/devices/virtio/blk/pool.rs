//! The threads that wait for the host's disk, so that the queue does not.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::backing::Backing;
use super::layout::Status;
use super::request::Request;
use crate::jail::{Confine, Thread};

/// How many requests wait for the host's disk at once.
const WORKERS: usize = 4;

/// The workers' name.
const NAME: &str = "virtio-blk-io";

/// A worker calls the kernel from a few frames deep.
const STACK: usize = 128 << 10;

/// Workers over one disk's file. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    backing: Backing,
    state: Mutex<State>,
    /// There is work, or no more will come.
    work: Condvar,
    /// Nobody works.
    idle: Condvar,
    /// Readable when something is done.
    bell: EventFd,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Request>,
    done: Vec<(Request, Status)>,
    busy: usize,
    over: bool,
}

impl Pool {
    pub(super) fn new(backing: Backing) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            backing,
            state: Mutex::default(),
            work: Condvar::new(),
            idle: Condvar::new(),
            bell: EventFd::new(EFD_NONBLOCK)?,
        });
        Ok(Self { shared, workers: Vec::with_capacity(WORKERS) })
    }

    /// Makes the workers, each of which confines itself first.
    pub(super) fn start(&mut self, confine: Confine) -> io::Result<()> {
        for _ in 0..WORKERS {
            let shared = Arc::clone(&self.shared);
            let body = move || match confine(Thread::Device(NAME)) {
                Ok(()) => shared.serve(),
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(error, "a disk lacks a worker");
                }
            };
            let builder = std::thread::Builder::new().name(NAME.to_owned()).stack_size(STACK);
            self.workers.push(builder.spawn(body)?);
        }
        Ok(())
    }

    pub(super) fn backing(&self) -> &Backing {
        &self.shared.backing
    }

    /// Readable when there is something for [`Pool::done`].
    pub(super) fn bell_fd(&self) -> i32 {
        self.shared.bell.as_raw_fd()
    }

    pub(super) fn submit(&self, request: Request) {
        self.shared.lock().waiting.push_back(request);
        self.shared.work.notify_one();
    }

    /// What was done since the last time.
    pub(super) fn done(&self) -> Vec<(Request, Status)> {
        // Fails only when nothing was done.
        let _ = self.shared.bell.read();
        std::mem::take(&mut self.shared.lock().done)
    }

    /// Forgets what was not begun and waits for what was: after this no buffer is touched.
    pub(super) fn stop(&self) {
        let mut state = self.shared.lock();
        state.waiting.clear();
        while state.busy > 0 {
            state = self.shared.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.done.clear();
        // Fails only when nothing was done.
        let _ = self.shared.bell.read();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.waiting.clear();
            state.over = true;
        }
        self.shared.work.notify_all();
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!("a disk's thread panicked");
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker's life.
    fn serve(&self) {
        let mut state = self.lock();
        while !state.over {
            let Some(request) = state.waiting.pop_front() else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.busy += 1;
            drop(state);
            let status = match &request.work {
                Ok(work) => self.backing.execute(work),
                Err(status) => *status,
            };
            state = self.lock();
            state.busy -= 1;
            state.done.push((request, status));
            if state.done.len() == 1 {
                // Fails only when the counter is full, and then it is readable anyway.
                let _ = self.bell.write(1);
            }
            if state.busy == 0 {
                self.idle.notify_all();
            }
        }
    }
}
