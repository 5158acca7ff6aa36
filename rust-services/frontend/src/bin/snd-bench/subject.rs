// SPDX-License-Identifier: Apache-2.0
//! A service that is measured: ours or the peer.
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use frontend::{Error, Launch, Result};
use tempfile::TempDir;

/// Our service with nothing in the way of the figure: one stream whose back end takes each buffer
/// whole as soon as it comes, as the peer's null back end does, and the queue thread at the
/// priority of the driver.
fn unpaced(volume: u32) -> String {
    format!(
        "[devices.bench]\n\
         type = \"snd\"\n\
         realtime_priority = 5\n\
         [[devices.bench.streams]]\n\
         name = \"Bench\"\n\
         volume = {volume}\n\
         backend = {{ type = \"null\", pace = false }}\n"
    )
}

/// The volume at which samples pass unchanged.
pub(crate) const UNITY: u32 = 100;
/// 10 dB less.
pub(crate) const QUIETER: u32 = 80;

/// A service that is measured, with a folder for its socket and what tools write.
#[derive(Debug)]
pub(crate) struct Subject {
    name: &'static str,
    program: PathBuf,
    args: Vec<OsString>,
    /// Arguments that take the sandbox away, under tools that it would stop.
    open: Vec<OsString>,
    folder: TempDir,
}

impl Subject {
    /// Ours with these arguments; without any, unpaced at this volume (half decibels, 100 unity).
    pub(crate) fn ours(program: &Path, args: &[String], volume: u32) -> Result<Self> {
        let folder = folder()?;
        let (args, open) = if args.is_empty() {
            let config = folder.path().join("bench.toml");
            fs::write(&config, unpaced(volume)).map_err(io("write the configuration"))?;
            let args = [
                "--config".into(),
                config.into(),
                "--bus".into(),
                "none".into(),
            ];
            (args.into(), vec!["--no-sandbox".into()])
        } else {
            (args.iter().map(OsString::from).collect(), Vec::new())
        };
        Ok(Self {
            name: "ours",
            program: program.into(),
            args,
            open,
            folder,
        })
    }

    /// Ours as it is without a configuration: paced, and played into files in its folder `out`.
    pub(crate) fn paced(program: &Path) -> Result<Self> {
        let folder = folder()?;
        let out = folder.path().join("out");
        let args = ["--bus".into(), "none".into(), "--output".into(), out.into()];
        Ok(Self {
            name: "ours",
            program: program.into(),
            args: args.into(),
            open: Vec::new(),
            folder,
        })
    }

    /// vhost-device-sound with its null back end.
    pub(crate) fn peer(program: &Path) -> Result<Self> {
        Ok(Self {
            name: "peer",
            program: program.into(),
            args: vec!["--backend".into(), "null".into()],
            open: Vec::new(),
            folder: folder()?,
        })
    }

    /// "ours" or "peer".
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// A file of its own in its folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// How to start it as it is meant to run.
    pub(crate) fn launch(&self) -> Launch {
        Launch::new(&self.program, self.file("socket"))
            .args(self.args.iter().cloned())
            .log(self.file("log"))
    }

    /// How to start it below a tool that its sandbox would stop.
    pub(crate) fn launch_open(&self) -> Launch {
        self.launch().args(self.open.iter().cloned())
    }

    /// The end of what it said, for a message about its failure.
    pub(crate) fn last_words(&self) -> String {
        let log = fs::read_to_string(self.file("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// `error` with what the service said.
    pub(crate) fn blame(&self, error: &Error) -> Error {
        Error::Service(format!("{}: {error}\n{}", self.name, self.last_words()))
    }
}

fn folder() -> Result<TempDir> {
    tempfile::tempdir().map_err(io("make a folder"))
}

/// Wrap what the system said about `doing`.
pub(crate) fn io(doing: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::Io { doing, source }
}
