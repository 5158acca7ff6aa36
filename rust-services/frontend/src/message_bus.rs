// SPDX-License-Identifier: Apache-2.0
//! A dbus-daemon of a test's own, on a socket in a folder of its own.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::deadline::Deadline;
use crate::error::{Error, Result};

/// What a distribution's system bus allows before any service's policy: to listen, and to ask the
/// bus itself. Nobody may have a name or call a method of others.
const AS_SYSTEM_BUS: &str = r#"
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
  </policy>"#;
/// Anybody may have any name and talk to anybody.
const OPEN: &str = r#"
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
  </policy>"#;

/// Who may do what on the bus.
#[derive(Debug, Clone)]
pub enum Policy {
    /// Anybody may do anything.
    Open,
    /// As on a system bus with this policy file of a service beside.
    System(PathBuf),
}

/// A message bus. Ends when it is dropped.
#[derive(Debug)]
pub struct MessageBus {
    folder: PathBuf,
    process: Option<Child>,
}

impl MessageBus {
    /// Start one in a folder, which other users may enter from now on.
    ///
    /// # Errors
    /// Where there is no dbus-daemon, or it does not listen.
    pub fn start(folder: &Path, policy: &Policy) -> Result<Self> {
        let failed = |source| Error::io("prepare the folder of a message bus", source);
        // Others than the test's user may connect, so that refusals can be tested.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).map_err(failed)?;
        let mut bus = Self {
            folder: folder.to_owned(),
            process: None,
        };
        let policy = match policy {
            Policy::Open => OPEN.to_owned(),
            Policy::System(file) => {
                format!("{AS_SYSTEM_BUS}\n  <include>{}</include>", file.display())
            }
        };
        let text = format!(
            r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>{}</listen>
  <auth>EXTERNAL</auth>{policy}
</busconfig>"#,
            bus.address()
        );
        fs::write(folder.join("bus.conf"), text).map_err(failed)?;
        bus.restart()?;
        Ok(bus)
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix:path={}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("bus")
    }

    /// End it.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// End it where it runs, and start it on the same address.
    ///
    /// # Errors
    /// As [`MessageBus::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        // Where there is none, the better.
        let _ = fs::remove_file(self.socket());
        let config = self.folder.join("bus.conf");
        let process = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .arg("--nofork")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| {
                Error::Service(format!(
                    "cannot start dbus-daemon ({source}): install the package dbus-daemon"
                ))
            })?;
        let process = self.process.insert(process);
        let deadline = Deadline::patient();
        while UnixStream::connect(self.folder.join("bus")).is_err() {
            let ended = process.try_wait().is_ok_and(|status| status.is_some());
            if ended || deadline.passed() {
                return Err(Error::Service("dbus-daemon does not listen".into()));
            }
            // Between two looks at something that cannot be waited for.
            std::thread::park_timeout(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for MessageBus {
    fn drop(&mut self) {
        self.stop();
    }
}
