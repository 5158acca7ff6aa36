// SPDX-License-Identifier: Apache-2.0
//! Round trips with one message in flight, the subjects by turns.
use frontend::{Deadline, Result};

use crate::distribution::Distribution;
use crate::pinning::Pinning;
use crate::subject::Subject;
use crate::workload::Workload;

/// Round trips before the measured ones, in each run.
const WARM_UP: u64 = 1_000;

/// The medians of `runs` runs of each subject.
pub(crate) fn measure(
    subjects: &[&Subject],
    workload: Workload,
    pinning: &Pinning,
    runs: usize,
    trips: u64,
) -> Result<Vec<(&'static str, Distribution)>> {
    let mut results = vec![Vec::new(); subjects.len()];
    for _ in 0..runs {
        for (subject, results) in subjects.iter().zip(&mut results) {
            let service = subject.launch().wrapped(pinning.wrapper()).start()?;
            let times = service
                .connect(Deadline::patient())
                .and_then(|stream| {
                    let mut sender = workload.begin(stream)?;
                    sender.send(WARM_UP)?;
                    sender.time(trips)
                })
                .map_err(|error| subject.blame(&error))?;
            results.push(Distribution::of(times));
        }
    }
    let names = subjects.iter().map(|subject| subject.name());
    Ok(names
        .zip(results.iter().map(|runs| Distribution::median(runs)))
        .collect())
}
