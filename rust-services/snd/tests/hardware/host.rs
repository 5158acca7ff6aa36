// SPDX-License-Identifier: Apache-2.0

//! The host's side: its kernel's sound cards, and the programs of alsa-utils that share them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::sound::{self, Shape};

/// How long anything may take on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(120);

/// A buffer as large as the card lets it be: the programs too may be late.
const LARGE: [&str; 2] = ["--buffer-time=4000000", "--period-time=50000"];

/// Waits until `ready` gives something.
pub(crate) fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(Instant::now() < end, "{what} did not happen");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// What a command prints, which must succeed.
pub(crate) fn said(words: &[&str]) -> String {
    let done = Command::new(words[0]).args(&words[1..]).output().unwrap();
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{words:?}: {error}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// One side of a substream, as the kernel shows it: `Loopback/pcm0p/sub0`.
pub(crate) struct Substream(PathBuf);

impl Substream {
    pub(crate) fn new(path: &str) -> Self {
        Self(Path::new("/proc/asound").join(path))
    }

    /// With which parameters it is open; "closed" without any, nothing where there is no such card.
    pub(crate) fn parameters(&self) -> Option<String> {
        fs::read_to_string(self.0.join("hw_params")).ok()
    }

    pub(crate) fn wait_until_running(&self) {
        wait_for("a running PCM", || {
            let status = fs::read_to_string(self.0.join("status")).ok()?;
            status.contains("state: RUNNING").then_some(())
        });
    }

    pub(crate) fn wait_until_closed(&self) {
        wait_for("a closed PCM", || {
            (self.parameters()?.trim() == "closed").then_some(())
        });
    }
}

/// A program of alsa-utils; ends with its owner.
pub(crate) struct Program(Child);

impl Program {
    fn start(name: &str, device: &str, shape: &Shape, rest: &[&str], file: &Path) -> Self {
        let (rate, channels) = (shape.hertz.to_string(), shape.channels.to_string());
        let child = Command::new(name)
            .args(["-q", "-D", device, "-t", "raw", "-f", shape.format.name])
            .args(["-r", &rate, "-c", &channels])
            .args(rest)
            .arg(file)
            .stdin(Stdio::null())
            .spawn();
        Self(child.unwrap_or_else(|error| panic!("{name}: {error}; install alsa-utils")))
    }

    /// Plays a file of bare frames.
    pub(crate) fn play(device: &str, shape: &Shape, file: &Path) -> Self {
        Self::start("aplay", device, shape, &LARGE, file)
    }

    pub(crate) fn end(&mut self) {
        kill_process(Pid::from_child(&self.0), Signal::INT).unwrap();
        wait_for("the end of a program", || self.0.try_wait().unwrap());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A recording of what comes out of a loopback card.
pub(crate) struct Recording {
    program: Program,
    file: PathBuf,
    shape: Shape,
}

impl Recording {
    /// Records substream `number` at the other end of the card, from now on.
    pub(crate) fn start(number: u32, shape: &Shape, file: &Path) -> Self {
        let _ = fs::remove_file(file);
        let program = Program::start(
            "arecord",
            &format!("hw:Loopback,1,{number}"),
            shape,
            &LARGE,
            file,
        );
        Substream::new(&format!("Loopback/pcm1c/sub{number}")).wait_until_running();
        Self {
            program,
            file: file.to_owned(),
            shape: *shape,
        }
    }

    /// The frames so far.
    pub(crate) fn so_far(&self) -> Vec<u8> {
        let mut bytes = fs::read(&self.file).unwrap_or_default();
        bytes.truncate(bytes.len() - bytes.len() % self.shape.frame());
        bytes
    }

    /// How many frames of the sound were heard at once, so far.
    pub(crate) fn heard(&self) -> usize {
        sound::longest(&self.so_far(), &self.shape)
    }

    /// Ends it, once all that has come out of the card by now is in the file.
    pub(crate) fn end(mut self) -> Vec<u8> {
        let whole = self.so_far().len() + self.shape.bytes(200);
        wait_for("the rest of a recording", || {
            (self.so_far().len() >= whole).then_some(())
        });
        self.program.end();
        self.so_far()
    }
}

/// The card that takes everything, for one test at a time: one of them takes it away.
pub(crate) fn dummy() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
