// SPDX-License-Identifier: Apache-2.0
//! A program that serves a device, started, watched and killed by a test; also below the keeper.
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::fd::{AsFd, OwnedFd};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::deadline::Deadline;
use crate::error::{Error, Result};

/// How to start a service.
#[derive(Debug, Clone)]
pub struct Launch {
    program: PathBuf,
    args: Vec<OsString>,
    keeper: Option<PathBuf>,
    wrapper: Vec<OsString>,
    keeper_args: Vec<OsString>,
    each_life: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    log: Option<PathBuf>,
    socket: PathBuf,
}

impl Launch {
    /// `program --socket SOCKET`.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>, socket: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            keeper: None,
            wrapper: Vec::new(),
            keeper_args: Vec::new(),
            each_life: Vec::new(),
            env: Vec::new(),
            log: None,
            socket: socket.into(),
        }
    }

    /// With these arguments after `--socket SOCKET`.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Below this keeper, which waits long for a service that is away, as a slow machine needs:
    /// `keeper --socket SOCKET --grace 60s -- program ARGS`.
    #[must_use]
    pub fn below_keeper(mut self, keeper: impl Into<PathBuf>) -> Self {
        self.keeper = Some(keeper.into());
        self.keeper_args(["--grace", "60s"])
    }

    /// Below this command: `valgrind …`, `strace …`, `taskset -c 1`.
    #[must_use]
    pub fn wrapped<A: Into<OsString>>(mut self, words: impl IntoIterator<Item = A>) -> Self {
        self.wrapper.extend(words.into_iter().map(Into::into));
        self
    }

    /// With these arguments of the keeper.
    #[must_use]
    pub fn keeper_args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.keeper_args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Each life of the service below the keeper begins with this command, which becomes the
    /// service: `keeper --socket SOCKET -- WORDS program ARGS`.
    #[must_use]
    pub fn each_life<A: Into<OsString>>(mut self, words: impl IntoIterator<Item = A>) -> Self {
        self.each_life = words.into_iter().map(Into::into).collect();
        self
    }

    /// With an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// With standard output and error in this file; without one they are the test's.
    #[must_use]
    pub fn log(mut self, path: impl Into<PathBuf>) -> Self {
        self.log = Some(path.into());
        self
    }

    /// Start it. It need not listen yet: [`ServiceUnderTest::connect`] waits for that.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(&self) -> Result<ServiceUnderTest> {
        let mut words: Vec<OsString> = self.wrapper.clone();
        let socket = [OsString::from("--socket"), self.socket.clone().into()];
        match &self.keeper {
            None => {
                words.push(self.program.clone().into());
                words.extend(socket);
            }
            Some(keeper) => {
                words.push(keeper.clone().into());
                words.extend(socket);
                words.extend(self.keeper_args.iter().cloned());
                words.push("--".into());
                words.extend(self.each_life.iter().cloned());
                words.push(self.program.clone().into());
            }
        }
        words.extend(self.args.iter().cloned());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null());
        if let Some(path) = &self.log {
            let log = fs::File::options()
                .create(true)
                .append(true)
                .open(path)
                .and_then(|log| Ok((log.try_clone()?, log)))
                .map_err(|source| Error::io("open the service's log", source))?;
            command.stdout(log.0).stderr(log.1);
        }
        let child = command
            .spawn()
            .map_err(|source| Error::Service(format!("cannot start {:?}: {source}", words[0])))?;
        let pid = Pid::from_child(&child);
        let exit = pidfd_open(pid, PidfdFlags::empty())
            .map_err(|source| Error::io("watch the service", source))?;
        Ok(ServiceUnderTest {
            child,
            exit,
            socket: self.socket.clone(),
            program: self.program.clone(),
            status: None,
        })
    }
}

/// A running service. Dropping it kills it, and what it started.
#[derive(Debug)]
pub struct ServiceUnderTest {
    child: Child,
    exit: OwnedFd,
    socket: PathBuf,
    program: PathBuf,
    status: Option<ExitStatus>,
}

impl ServiceUnderTest {
    /// Connect as soon as it listens. There is no probing: the connection is the first that it
    /// sees from this call.
    ///
    /// # Errors
    /// Where it ends before it listens, or does not listen before the deadline.
    pub fn connect(&self, deadline: Deadline) -> Result<UnixStream> {
        loop {
            let refusal = match UnixStream::connect(&self.socket) {
                Ok(stream) => return Ok(stream),
                Err(refusal) => refusal,
            };
            // Waiting for the end of the process makes the pause between two attempts.
            let pause = Deadline::after(Duration::from_millis(1).min(deadline.left()));
            if pause.readable(self.exit.as_fd())? {
                return Err(Error::Service("it ended before it listened".into()));
            }
            if deadline.passed() {
                let socket = self.socket.display();
                return Err(Error::TimedOut(format!(
                    "a listener at {socket} ({refusal})"
                )));
            }
        }
    }

    /// The socket it was told to listen on.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The process that was started: the service, its wrapper, or the keeper.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process that runs the service's program: the started one or one below it. `None`
    /// while there is none, as between a kill and the keeper's restart.
    #[must_use]
    pub fn service_pid(&self) -> Option<u32> {
        let program = fs::canonicalize(&self.program).ok()?;
        let runs =
            |pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program);
        std::iter::once(self.pid())
            .chain(descendants(self.pid()))
            .find(|pid| runs(pid))
    }

    /// [`Self::service_pid`], waited for; other than `not` (the one that was killed).
    ///
    /// # Errors
    /// [`Error::TimedOut`] where none appears.
    pub fn wait_service_pid(&self, not: Option<u32>, deadline: Deadline) -> Result<u32> {
        loop {
            match self.service_pid() {
                Some(pid) if Some(pid) != not => return Ok(pid),
                _ if deadline.passed() => {
                    return Err(Error::TimedOut("the service's process".into()));
                }
                _ => {}
            }
            let pause = Deadline::after(Duration::from_millis(1));
            if pause.readable(self.exit.as_fd())? {
                return Err(Error::Service(
                    "the process that was started has ended".into(),
                ));
            }
        }
    }

    /// kill -9 of the service's process, which may be below the keeper: its id.
    ///
    /// # Errors
    /// Where there is no such process.
    pub fn kill_service(&self) -> Result<u32> {
        let pid = self
            .service_pid()
            .ok_or_else(|| Error::Service("it does not run".into()))?;
        signal(pid, Signal::KILL)?;
        Ok(pid)
    }

    /// Send a signal to the process that was started.
    ///
    /// # Errors
    /// Where it has gone.
    pub fn signal(&self, signal_number: Signal) -> Result<()> {
        signal(self.pid(), signal_number)
    }

    /// SIGTERM, and the exit code that it ends with.
    ///
    /// # Errors
    /// Where it does not end, or ends by a signal.
    pub fn terminate(&mut self, deadline: Deadline) -> Result<i32> {
        self.signal(Signal::TERM)?;
        let status = self.wait(deadline)?;
        status.code().ok_or_else(|| {
            Error::Service(format!(
                "ended by signal {}",
                status.signal().unwrap_or_default()
            ))
        })
    }

    /// Wait for its end.
    ///
    /// # Errors
    /// [`Error::TimedOut`] where it does not end.
    pub fn wait(&mut self, deadline: Deadline) -> Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        if !deadline.readable(self.exit.as_fd())? {
            return Err(Error::TimedOut("the end of the service".into()));
        }
        let status = self
            .child
            .wait()
            .map_err(|source| Error::io("wait for the service", source))?;
        self.status = Some(status);
        Ok(status)
    }

    /// Whether the started process runs.
    ///
    /// # Errors
    /// Where it cannot be waited for.
    pub fn is_alive(&mut self) -> Result<bool> {
        match self.wait(Deadline::after(Duration::ZERO)) {
            Ok(_) => Ok(false),
            Err(Error::TimedOut(_)) => Ok(true),
            Err(other) => Err(other),
        }
    }

    /// What the service's process uses at present.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn footprint(&self) -> Result<Footprint> {
        let pid = self
            .service_pid()
            .ok_or_else(|| Error::Service("it does not run".into()))?;
        Footprint::of(pid)
    }
}

impl Drop for ServiceUnderTest {
    fn drop(&mut self) {
        if self.status.is_some() {
            return;
        }
        let below = descendants(self.pid());
        // It may have ended meanwhile: then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in below {
            let _ = signal(pid, Signal::KILL);
        }
    }
}

/// What a process holds: a leak shows as growth over many rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Open descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
    /// Memory mappings.
    pub mappings: usize,
    /// Private resident memory in KiB (smaps_rollup: clean and dirty). What is clean is private only
    /// while no other process runs the same program.
    pub private_kib: u64,
    /// The part of it that was written: what a process has of its own, whoever else runs.
    pub dirty_kib: u64,
}

impl Footprint {
    /// Of any process.
    ///
    /// # Errors
    /// Where it does not run or may not be looked at.
    pub fn of(pid: u32) -> Result<Self> {
        let failed = |source| Error::io("look at the service's process", source);
        let count = |what: &str| {
            fs::read_dir(format!("/proc/{pid}/{what}"))
                .map(Iterator::count)
                .map_err(failed)
        };
        let text = |what: &str| fs::read_to_string(format!("/proc/{pid}/{what}")).map_err(failed);
        let rollup = text("smaps_rollup")?;
        let kib = |name: &str| -> u64 {
            rollup
                .lines()
                .filter_map(|line| line.strip_prefix(name)?.split_whitespace().next())
                .filter_map(|number| number.parse::<u64>().ok())
                .sum()
        };
        let dirty_kib = kib("Private_Dirty:");
        Ok(Self {
            descriptors: count("fd")?,
            threads: count("task")?,
            mappings: text("maps")?.lines().count(),
            private_kib: dirty_kib.saturating_add(kib("Private_Clean:")),
            dirty_kib,
        })
    }
}

/// All processes below `pid`, nearest first.
#[must_use]
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut found: Vec<u32> = Vec::new();
    let mut todo = vec![pid];
    while let Some(parent) = todo.pop() {
        let children = children(parent);
        found.extend(&children);
        todo.extend(children);
    }
    found
}

/// The processes that another one has started. Not every kernel lists them; each says its parent.
fn children(parent: u32) -> Vec<u32> {
    if let Ok(tasks) = fs::read_dir(format!("/proc/{parent}/task")) {
        let lists: Vec<_> = tasks
            .flatten()
            .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
            .collect();
        if !lists.is_empty() {
            let words = lists.iter().flat_map(|list| list.split_whitespace());
            return words.filter_map(|word| word.parse().ok()).collect();
        }
    }
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parent = parent.to_string();
    pids.filter(|pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name, in which anything may stand, come the state and the parent.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        fields.split_whitespace().nth(1) == Some(&parent)
    })
    .collect()
}

fn signal(pid: u32, number: Signal) -> Result<()> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| Error::Service(format!("{pid} is no process id")))?;
    kill_process(pid, number).map_err(|source| Error::io("signal the service", source))
}

/// The path of a program that Cargo built into the folder of the running test or benchmark
/// program (`target/debug/NAME` seen from `target/debug/deps/TEST`).
///
/// # Errors
/// Where it is not there: build the whole workspace first.
pub fn built_program(name: impl AsRef<OsStr>) -> Result<PathBuf> {
    let name = Path::new(name.as_ref());
    let me = std::env::current_exe().map_err(|source| Error::io("find this program", source))?;
    me.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            Error::Service(format!(
                "{} is not built: cargo build --workspace",
                name.display()
            ))
        })
}
