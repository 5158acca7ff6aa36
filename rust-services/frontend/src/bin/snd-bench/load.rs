// SPDX-License-Identifier: Apache-2.0
//! What makes a machine busy: a second guest whose service has all hands full, and memory traffic.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use frontend::service_under_test::ServiceUnderTest;
use frontend::{Deadline, Result};

use crate::subject::Subject;
use crate::workload::Workload;

/// Larger than any cache.
const MEMORY: usize = 64 << 20;

/// A load, until it is dropped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    _service: ServiceUnderTest,
}

impl Load {
    /// A guest that sends `subject` one playback buffer after the other, as fast as it can, and on
    /// each CPU a thread that copies memory.
    pub(crate) fn start(subject: &Subject) -> Result<Self> {
        let service = subject.launch().start()?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut sender = service
            .connect(Deadline::patient())
            .and_then(|stream| Workload::Playback { in_flight: 8 }.begin(stream))
            .map_err(|error| subject.blame(&error))?;
        let until = Arc::clone(&stop);
        let mut threads = vec![std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                if let Err(error) = sender.send(1000) {
                    eprintln!("the second guest ends: {error}");
                    return;
                }
            }
        })];
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        threads.extend((0..cpus).map(|_| {
            let until = Arc::clone(&stop);
            std::thread::spawn(move || copy_memory(&until))
        }));
        Ok(Self {
            stop,
            threads,
            _service: service,
        })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn copy_memory(until: &AtomicBool) {
    let mut memory = vec![1_u8; MEMORY];
    while !until.load(Ordering::Relaxed) {
        let (one, other) = memory.split_at_mut(MEMORY / 2);
        other.copy_from_slice(one);
        std::hint::black_box(&mut *other);
    }
}
