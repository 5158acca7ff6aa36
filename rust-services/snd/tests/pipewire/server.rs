// SPDX-License-Identifier: Apache-2.0

//! A PipeWire of the test's own, with no hardware: a bus, the server, its session manager, and what the
//! test has it have: usually a sink that plays into nothing but can be heard.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take on a machine that has other things to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

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

/// A process that ends with its owner.
pub(crate) struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|error| {
            panic!(
                "cannot start {:?}: {error}; install pipewire, wireplumber, dbus",
                command.get_program()
            )
        }))
    }

    /// Ends it at once, as a crash does.
    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn interrupt(&mut self) {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, Signal::INT).unwrap();
        wait_for("the end of a process", || self.0.try_wait().unwrap());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) struct PipeWire {
    folder: tempfile::TempDir,
    /// Is in the graph once it is up.
    sign: &'static str,
    // Ended in this order.
    manager: Option<Process>,
    server: Option<Process>,
    _bus: Process,
    // One at a time: two would share the processors of a small machine.
    _alone: MutexGuard<'static, ()>,
}

/// The name of the sink. It plays 1024 frames at a time, as PipeWire does inside a virtual machine
/// anyway: a busy machine without real-time threads manages no less.
pub(crate) const SINK: &str = "speaker";
/// The name of a source without a microphone, to which anything can be linked.
const SOURCE: &str = "microphone";

impl PipeWire {
    /// With a sink and a source.
    pub(crate) fn start() -> Self {
        let configuration = format!(
            "context.properties = {{ default.clock.min-quantum = 1024 }}
            context.objects = [ {{ factory = adapter args = {{
                factory.name = support.null-audio-sink media.class = Audio/Sink
                node.name = {SINK} audio.position = [ FL FR ] }} }}
              {{ factory = adapter args = {{
                factory.name = support.null-audio-sink media.class = Audio/Source/Virtual
                node.name = {SOURCE} audio.position = [ FL FR ] }} }} ]\n"
        );
        Self::with(&configuration, "\"default.audio.sink\"")
    }

    /// With what this configuration adds, and this sign in the graph.
    pub(crate) fn with(configuration: &str, sign: &'static str) -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        // A short path: names of sockets end after 108 bytes.
        let folder = tempfile::Builder::new()
            .prefix("pw")
            .tempdir_in("/tmp")
            .unwrap();
        let drop_in = folder
            .path()
            .join("config/pipewire/pipewire.conf.d/test.conf");
        fs::create_dir_all(drop_in.parent().unwrap()).unwrap();
        fs::write(drop_in, configuration).unwrap();
        let bus = Process::start(
            command(folder.path(), "dbus-daemon")
                .args(["--session", "--nofork"])
                .arg(format!(
                    "--address=unix:path={}/bus",
                    folder.path().display()
                )),
        );
        let mut this = Self {
            folder,
            sign,
            manager: None,
            server: None,
            _bus: bus,
            _alone: alone,
        };
        let path = this.path("bus");
        wait_for("the bus", || path.exists().then_some(()));
        this.restart();
        this
    }

    /// Kills the server, as a crash does; its session manager ends with it.
    pub(crate) fn crash(&mut self) {
        self.server.as_mut().unwrap().kill();
        self.server = None;
        self.manager = None;
        let _ = fs::remove_file(self.socket());
    }

    /// Starts the server, and waits until its sign is there.
    pub(crate) fn restart(&mut self) {
        self.server = Some(Process::start(&mut self.command("pipewire")));
        let socket = self.socket();
        wait_for("PipeWire", || socket.exists().then_some(()));
        self.manager = Some(Process::start(&mut self.command("wireplumber")));
        wait_for(self.sign, || self.dump().contains(self.sign).then_some(()));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("pipewire-0")
    }

    /// The address of the message bus.
    pub(crate) fn bus(&self) -> String {
        format!("unix:path={}", self.path("bus").display())
    }

    /// A program that uses this server.
    pub(crate) fn command(&self, program: &str) -> Command {
        command(self.folder.path(), program)
    }

    /// The environment that leads a program to this server.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        environment(self.folder.path())
    }

    /// The graph, as pw-dump writes it.
    pub(crate) fn dump(&self) -> String {
        let output = self
            .command("pw-dump")
            .stderr(Stdio::null())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Properties `media.role` of all streams that play, in no order.
    pub(crate) fn roles(&self) -> Vec<String> {
        let dump = self.dump();
        dump.split("\"type\": \"PipeWire:Interface:Node\"")
            .filter(|node| node.contains("\"media.class\": \"Stream/Output/Audio\""))
            .filter_map(|node| node.split("\"media.role\": \"").nth(1))
            .filter_map(|rest| rest.split('"').next())
            .map(str::to_owned)
            .collect()
    }

    /// Lets the source give what the sink plays.
    pub(crate) fn link(&self) {
        for side in ["FL", "FR"] {
            wait_for("a link", || {
                let status = self
                    .command("pw-link")
                    .arg(format!("{SINK}:monitor_{side}"))
                    .arg(format!("{SOURCE}:input_{side}"))
                    .stderr(Stdio::null())
                    .status();
                status.unwrap().success().then_some(())
            });
        }
    }

    /// Records what the sink plays until [`Recording::end`].
    pub(crate) fn record(&self) -> Recording {
        let file = tempfile::Builder::new()
            .suffix(".wav")
            .tempfile_in(self.folder.path())
            .unwrap()
            .into_temp_path();
        let process = Process::start(
            self.command("pw-record")
                .args(["-P", "{ stream.capture.sink = true }", "--target", SINK])
                .args([
                    "--rate=48000",
                    "--channels=2",
                    "--format=f32",
                    "--latency=20ms",
                ])
                .arg(&file),
        );
        wait_for("the recording", || {
            let length = fs::metadata(&file).ok()?.len();
            (length > 100_000).then_some(())
        });
        Recording { process, file }
    }
}

/// A recording of what a sink plays.
pub(crate) struct Recording {
    process: Process,
    file: tempfile::TempPath,
}

impl Recording {
    /// The frames so far: left and right.
    pub(crate) fn so_far(&self) -> Vec<[f32; 2]> {
        let bytes = fs::read(&self.file).unwrap();
        let data = bytes.windows(4).position(|word| word == b"data").unwrap() + 8;
        bytes[data..]
            .chunks_exact(8)
            .map(|frame| {
                [
                    f32::from_le_bytes(frame[..4].try_into().unwrap()),
                    f32::from_le_bytes(frame[4..].try_into().unwrap()),
                ]
            })
            .collect()
    }

    /// Ends it and gives the frames.
    pub(crate) fn end(mut self) -> Vec<[f32; 2]> {
        self.process.interrupt();
        self.so_far()
    }
}

impl Drop for PipeWire {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = fs::read(self.path("log")).unwrap_or_default();
            eprintln!("{}", String::from_utf8_lossy(&said));
        }
    }
}

fn environment(folder: &Path) -> Vec<(&'static str, String)> {
    let folder = folder.display();
    vec![
        ("XDG_RUNTIME_DIR", folder.to_string()),
        ("PIPEWIRE_RUNTIME_DIR", folder.to_string()),
        ("XDG_CONFIG_HOME", format!("{folder}/config")),
        ("XDG_STATE_HOME", format!("{folder}/state")),
        (
            "DBUS_SESSION_BUS_ADDRESS",
            format!("unix:path={folder}/bus"),
        ),
    ]
}

/// A program of the server's side: with real-time priority where that may be had, for a busy machine
/// makes PipeWire drop what nobody else loses.
fn command(folder: &Path, program: &str) -> Command {
    static REALTIME: LazyLock<bool> = LazyLock::new(|| {
        let status = Command::new("chrt").args(["-f", "10", "true"]).status();
        status.is_ok_and(|status| status.success())
    });
    let mut command = if *REALTIME {
        let mut command = Command::new("chrt");
        command.args(["-f", "10", program]);
        command
    } else {
        Command::new(program)
    };
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"));
    command.envs(environment(folder)).stderr(log.unwrap());
    command
}
