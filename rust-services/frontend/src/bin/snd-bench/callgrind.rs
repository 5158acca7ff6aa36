// SPDX-License-Identifier: Apache-2.0
//! Instructions per message: two runs of different length under callgrind, their difference
//! divided by the messages between them, so that starting up and shutting down cancel out.
use std::fs;
use std::time::Duration;

use frontend::{Deadline, Error, Result};
use rustix::process::Signal;

use crate::pinning::Pinning;
use crate::subject::{Subject, io};
use crate::workload::Workload;

const SHORT: u64 = 500;
const LONG: u64 = 2_500;

/// Instructions that a service spends on one message, all its threads and processes together.
pub(crate) fn per_message(subject: &Subject, workload: Workload, pinning: &Pinning) -> Result<f64> {
    let short = total(subject, workload, pinning, SHORT)?;
    let long = total(subject, workload, pinning, LONG)?;
    if long <= short {
        return Err(Error::Service(format!(
            "{LONG} messages took {long}, {SHORT} {short}"
        )));
    }
    Ok((long - short) as f64 / (LONG - SHORT) as f64)
}

/// Instructions of a whole run.
fn total(subject: &Subject, workload: Workload, pinning: &Pinning, messages: u64) -> Result<u64> {
    let folder = subject.file("callgrind");
    fs::create_dir(&folder).map_err(io("make a folder for callgrind"))?;
    let out = format!("--callgrind-out-file={}/out.%p", folder.display());
    let mut service = subject
        .launch_open()
        .wrapped(pinning.wrapper())
        .wrapped([
            "valgrind",
            "--quiet",
            "--tool=callgrind",
            "--trace-children=yes",
            &out,
        ])
        .start()?;
    let patience = Deadline::after(Duration::from_secs(120));
    service
        .connect(patience)
        .and_then(|stream| workload.begin(stream)?.send(messages))
        .map_err(|error| subject.blame(&error))?;
    service.signal(Signal::TERM)?;
    service.wait(patience)?;
    let mut instructions = 0;
    for entry in fs::read_dir(&folder).map_err(io("look for callgrind's files"))? {
        let path = entry.map_err(io("look for callgrind's files"))?.path();
        let text = fs::read_to_string(path).map_err(io("read callgrind's file"))?;
        instructions += text
            .lines()
            .filter_map(|line| {
                line.strip_prefix("totals: ")?
                    .split(' ')
                    .next()?
                    .parse::<u64>()
                    .ok()
            })
            .sum::<u64>();
    }
    fs::remove_dir_all(&folder).map_err(io("remove callgrind's files"))?;
    if instructions == 0 {
        return Err(subject.blame(&Error::Service("callgrind counted nothing".into())));
    }
    Ok(instructions)
}
