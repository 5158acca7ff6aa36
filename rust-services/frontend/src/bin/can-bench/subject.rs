// SPDX-License-Identifier: Apache-2.0
//! A service that is measured: started, perhaps below a tool, connected to, ended.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use frontend::clients::can::CanClient;
use frontend::service_under_test::descendants;
use frontend::{Deadline, Error};
use rustix::process::{Pid, Signal, kill_process};

/// The most that the peer takes.
const QUEUE_SIZE: u16 = 64;

/// How a service is started.
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    pub(crate) words: Vec<String>,
    /// What takes away what would stop a tool.
    pub(crate) opened: &'static [&'static str],
    /// Where it will listen.
    pub(crate) socket: PathBuf,
}

impl Plan {
    /// Start it.
    pub(crate) fn start(&self) -> Result<Subject, Error> {
        self.spawn(&mut Command::new(&self.program), &[])
    }

    /// Start it below the tool that these words call.
    pub(crate) fn start_below(&self, tool: &[String]) -> Result<Subject, Error> {
        let (first, rest) = tool
            .split_first()
            .map_or(("", tool), |(of, rest)| (of, rest));
        let mut command = Command::new(first);
        command.args(rest).arg(&self.program);
        self.spawn(&mut command, self.opened)
    }

    fn spawn(&self, command: &mut Command, more: &[&str]) -> Result<Subject, Error> {
        // The last life's would be mistaken for this one's.
        let _ = std::fs::remove_file(&self.socket);
        command.args(&self.words).args(more);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(io("start a service"))?;
        Ok(Subject(child))
    }

    /// Connect a driver, once the service listens.
    pub(crate) fn connect(&self) -> Result<CanClient, Error> {
        let deadline = Deadline::patient();
        let mut options = CanClient::options();
        for queue in &mut options.queues {
            queue.size = QUEUE_SIZE;
        }
        loop {
            match UnixStream::connect(&self.socket) {
                Ok(stream) => return CanClient::start(stream, &options),
                Err(error) if deadline.passed() => return Err(io("connect")(error)),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

/// A service that ends with this.
pub(crate) struct Subject(Child);

impl Subject {
    /// CPU time that it has used.
    pub(crate) fn cpu(&self) -> Result<Duration, Error> {
        // utime and stime, in hundredths of a second, are the 12th and 13th after the name.
        let ticks: u64 = stat(self.0.id())?
            .get(11..13)
            .unwrap_or_default()
            .iter()
            .sum();
        Ok(Duration::from_millis(ticks * 10))
    }

    /// End the service and wait: a tool above it ends with it, and then writes what it counted.
    pub(crate) fn end(mut self) -> Result<(), Error> {
        let own = self.0.id();
        let pid = descendants(own).first().copied().unwrap_or(own);
        let target = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let target = target.ok_or_else(|| Error::Service("it has no number".into()))?;
        kill_process(target, Signal::TERM).map_err(|error| io("end a service")(error.into()))?;
        self.0.wait().map(drop).map_err(io("wait for a service"))
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The numbers after the name in a process' stat; what is no number counts as 0.
fn stat(pid: u32) -> Result<Vec<u64>, Error> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).map_err(io("read stat"))?;
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let number = |field: &str| field.parse().unwrap_or(0);
    Ok(fields.split_whitespace().map(number).collect())
}

pub(crate) fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Service(format!("cannot {what}: {source}"))
}
