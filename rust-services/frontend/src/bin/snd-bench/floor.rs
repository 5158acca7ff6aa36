// SPDX-License-Identifier: Apache-2.0
//! The floor of every round trip: two processes that wake each other by eventfds and do nothing
//! else, on the same CPU.
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use frontend::connection::Connection;
use frontend::event::{Blocking, Event};
use frontend::{Deadline, Error, Result};
use rustix::io::{read, write};

use crate::distribution::Distribution;
use crate::pinning::Pinning;
use crate::subject::io;

/// The count that ends the other side.
const END: u64 = 2;

/// The medians of `runs` runs.
pub(crate) fn measure(pinning: &Pinning, runs: usize, trips: u64) -> Result<Distribution> {
    let folder = tempfile::tempdir().map_err(io("make a folder"))?;
    let socket = folder.path().join("pong");
    let listener = UnixListener::bind(&socket).map_err(io("listen for the other side"))?;
    let me = std::env::current_exe().map_err(io("find this program"))?;
    let wrapper = pinning.wrapper();
    let mut other = Command::new(&wrapper[0])
        .args(&wrapper[1..])
        .arg(me)
        .arg("pong")
        .arg(&socket)
        .spawn()
        .map_err(io("start the other side"))?;
    if !Deadline::patient().readable(listener.as_fd())? {
        return Err(Error::TimedOut("the other side of the ping-pong".into()));
    }
    let (stream, _) = listener.accept().map_err(io("meet the other side"))?;
    let (ping, pong) = (Event::new(Blocking::Yes)?, Event::new(Blocking::Yes)?);
    Connection::new(stream).send(0, 0, &[], &[ping.as_fd(), pong.as_fd()])?;
    let mut results = Vec::with_capacity(runs);
    for _ in 0..runs {
        let mut times = Vec::with_capacity(trips as usize);
        for _ in 0..trips {
            let begin = Instant::now();
            ping.signal()?;
            pong.wait_in_read()?;
            times.push(begin.elapsed().as_nanos() as u64);
        }
        results.push(Distribution::of(times));
    }
    write(&ping, &END.to_ne_bytes()).map_err(|source| io("end the other side")(source.into()))?;
    other.wait().map_err(io("wait for the other side"))?;
    Ok(Distribution::median(&results))
}

/// The other side: answer each ping with a pong.
pub(crate) fn pong(socket: &Path) -> Result<()> {
    let stream = UnixStream::connect(socket).map_err(io("meet the benchmark"))?;
    let message = Connection::new(stream).receive()?;
    let [ping, pong]: [OwnedFd; 2] = message
        .fds
        .try_into()
        .map_err(|_| Error::Service("the benchmark sent other than two events".into()))?;
    loop {
        let mut count = [0u8; 8];
        read(&ping, &mut count).map_err(|source| io("wait for a ping")(source.into()))?;
        if u64::from_ne_bytes(count) == END {
            return Ok(());
        }
        write(&pong, &1u64.to_ne_bytes()).map_err(|source| io("answer")(source.into()))?;
    }
}
