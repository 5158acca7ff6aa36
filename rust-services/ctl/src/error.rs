// SPDX-License-Identifier: Apache-2.0
//! Why a command did not do what it should, for the person who typed it.

use agl_virtio_client::zbus;
use agl_virtio_manager::foreign::paragraph;
use agl_virtio_service::{Exit, ExitReason};
use std::io;
use std::path::PathBuf;

/// So much is shown of what somebody answered: a manager tells of several faults at once. In
/// characters.
const LONGEST: usize = 20_000;

/// What the names of devices' services begin with.
const DEVICES: &str = "org.automotivelinux.Virtio1.Device.";

#[derive(Debug, thiserror::Error)]
pub(crate) enum CtlError {
    #[error("the manager is not on the bus: is agl-virtiod started? ({0})")]
    NoManager(String),
    #[error("this is not allowed to you: {0}")]
    Denied(String),
    #[error("{0}")]
    Refused(String),
    #[error("the bus: {0}")]
    Bus(String),
    #[error("{what}: {source}")]
    File { what: PathBuf, source: io::Error },
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Files(String),
    #[error("the terminal: {0}")]
    Terminal(#[source] io::Error),
    /// What was found has been said already.
    #[error("this host is not able to run guests as it is")]
    NotAble,
    /// Nobody reads what would be written.
    #[error("nobody reads standard output any more")]
    ReaderLeft,
    #[error("the guest still runs after {0} s")]
    StillRuns(u32),
}

impl From<zbus::Error> for CtlError {
    fn from(error: zbus::Error) -> Self {
        match error {
            zbus::Error::MethodError(name, text, _) => {
                let text = text.unwrap_or_else(|| name.to_string());
                named(name.as_str(), text)
            }
            zbus::Error::FDO(error) => Self::from(*error),
            error => Self::Bus(error.to_string()),
        }
    }
}

impl From<zbus::fdo::Error> for CtlError {
    fn from(error: zbus::fdo::Error) -> Self {
        use agl_virtio_client::zbus::DBusError;
        if let zbus::fdo::Error::ZBus(error) = error {
            return Self::from(error);
        }
        let text = error.description().unwrap_or_default().to_owned();
        named(error.name().as_str(), text)
    }
}

fn named(name: &str, text: String) -> CtlError {
    // It may be a service's word, or that of whoever has its name.
    let text = paragraph(&text, LONGEST);
    match name.rsplit('.').next().unwrap_or_default() {
        "ServiceUnknown" | "NameHasNoOwner" if text.contains(DEVICES) => CtlError::Refused(
            format!("the device's service is not on the bus, see agl-virtioctl status ({text})"),
        ),
        "ServiceUnknown" | "NameHasNoOwner" => CtlError::NoManager(text),
        "AccessDenied" => CtlError::Denied(text),
        "NoReply" | "Disconnected" => CtlError::Bus(text),
        _ => CtlError::Refused(text),
    }
}

impl ExitReason for CtlError {
    fn exit(&self) -> Exit {
        match self {
            Self::NoManager(_) | Self::Bus(_) | Self::NotAble => Exit::Unavailable,
            Self::Denied(_) => Exit::NoPermission,
            Self::Refused(_) | Self::StillRuns(_) => Exit::Software,
            Self::File { source, .. } => source.exit(),
            Self::Usage(_) => Exit::Usage,
            Self::Files(_) => Exit::Config,
            Self::Terminal(_) => Exit::Io,
            Self::ReaderLeft => Exit::Ok,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_is_not_on_the_bus_is_not_taken_for_the_manager() {
        let unknown = "org.freedesktop.DBus.Error.ServiceUnknown";
        let text = |name: &str| format!("The name {name} was not provided by any .service files");
        let device = named(unknown, text("org.automotivelinux.Virtio1.Device.ivi.card"));
        assert!(matches!(device, CtlError::Refused(_)), "{device}");
        let manager = named(unknown, text("org.automotivelinux.Virtio1"));
        assert!(matches!(manager, CtlError::NoManager(_)), "{manager}");
    }
}
