// SPDX-License-Identifier: Apache-2.0
//! What a service costs before it does anything: memory, and the time to its first period.
use std::path::Path;
use std::time::Instant;

use frontend::service_under_test::{Footprint, descendants};
use frontend::{Deadline, Result};

use crate::distribution::median;
use crate::subject::Subject;
use crate::workload::Workload;

/// Memory in KiB.
#[derive(Clone, Copy, Default)]
pub(crate) struct Idle {
    /// Resident and of no other process, program text included.
    pub(crate) private: f64,
    /// The part of it that was written: what one more service of the same program takes.
    pub(crate) written: f64,
}

/// Memory with a started guest that plays nothing; below a keeper, of both processes together.
pub(crate) fn idle(subject: &Subject, keeper: Option<&Path>) -> Result<Idle> {
    let mut launch = subject.launch();
    if let Some(keeper) = keeper {
        launch = launch.below_keeper(keeper);
    }
    let service = launch.start()?;
    let mut sender = service
        .connect(Deadline::patient())
        .and_then(|stream| Workload::PcmInfo.begin(stream))
        .map_err(|error| subject.blame(&error))?;
    sender.send(10)?;
    let mut idle = Idle::default();
    for pid in std::iter::once(service.pid()).chain(descendants(service.pid())) {
        let footprint = Footprint::of(pid)?;
        idle.private += footprint.private_kib as f64;
        idle.written += footprint.dirty_kib as f64;
    }
    Ok(idle)
}

/// Milliseconds from the start of the program until its first playback buffer is back: medians,
/// the subjects by turns.
pub(crate) fn first_period_ms(
    subjects: &[&Subject],
    runs: usize,
) -> Result<Vec<(&'static str, f64)>> {
    let mut times = vec![Vec::new(); subjects.len()];
    for _ in 0..runs {
        for (subject, times) in subjects.iter().zip(&mut times) {
            let begin = Instant::now();
            let service = subject.launch().start()?;
            service
                .connect(Deadline::patient())
                .and_then(|stream| Workload::Playback { in_flight: 1 }.begin(stream)?.send(1))
                .map_err(|error| subject.blame(&error))?;
            times.push(begin.elapsed().as_micros() as u64);
        }
    }
    let names = subjects.iter().map(|subject| subject.name());
    Ok(names
        .zip(times.iter_mut().map(|times| median(times) as f64 / 1000.0))
        .collect())
}
