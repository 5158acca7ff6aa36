// SPDX-License-Identifier: Apache-2.0
//! System calls per message, by the difference of two runs under `strace -f -c`.
use std::fs;
use std::time::Duration;

use frontend::{Deadline, Error, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::pinning::Pinning;
use crate::subject::{Subject, io};
use crate::workload::Workload;

const SHORT: u64 = 500;
const LONG: u64 = 2_500;

/// System calls that a service makes for one message, all its threads together.
pub(crate) fn per_message(subject: &Subject, workload: Workload, pinning: &Pinning) -> Result<f64> {
    let short = total(subject, workload, pinning, SHORT)?;
    let long = total(subject, workload, pinning, LONG)?;
    Ok((long as f64 - short as f64) / (LONG - SHORT) as f64)
}

fn total(subject: &Subject, workload: Workload, pinning: &Pinning, messages: u64) -> Result<u64> {
    let out = subject.file("strace");
    let mut service = subject
        .launch_open()
        .wrapped(pinning.wrapper())
        .wrapped(["strace", "-f", "-qq", "-c", "-o"])
        .wrapped([out.clone()])
        .start()?;
    let patience = Deadline::after(Duration::from_secs(60));
    service
        .connect(patience)
        .and_then(|stream| workload.begin(stream)?.send(messages))
        .map_err(|error| subject.blame(&error))?;
    // The service, not strace: that ends with it, and then writes its table.
    let pid = service.wait_service_pid(None, patience)?;
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        kill_process(pid, Signal::TERM).map_err(|source| io("end the service")(source.into()))?;
    }
    service.wait(patience)?;
    let text = fs::read_to_string(&out).map_err(io("read strace's table"))?;
    // "% time  seconds  usecs/call  calls  errors  syscall", the last line being the sum.
    text.lines()
        .rev()
        .find(|line| line.ends_with(" total"))
        .and_then(|line| line.split_whitespace().nth(3)?.parse().ok())
        .ok_or_else(|| Error::Service(format!("strace's table has no total:\n{text}")))
}
