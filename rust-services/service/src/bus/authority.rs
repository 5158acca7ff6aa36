// SPDX-License-Identifier: Apache-2.0
//! Who may change something.
//!
//! Reading is free. A change is allowed to root, to whom polkit allows the action that is about it,
//! and, only where polkit is not on the bus, to the user that the service runs as.

use std::collections::HashMap;
use zbus::Connection;
use zbus::fdo::{self, DBusProxy};
use zbus::message::{Flags, Header};
use zbus::names::BusName;
use zbus::zvariant::Value;

/// The polkit action for every change of a guest's devices, as for a volume.
pub const MANAGE_ACTION: &str = "org.automotivelinux.virtio1.manage";

/// The polkit action to start and stop guests, and to put devices in and out.
pub const RUN_ACTION: &str = "org.automotivelinux.virtio1.run";

/// The polkit action to write and remove guests' files. They say which programs the manager starts
/// as root: whom this is granted is root.
pub const DEFINE_ACTION: &str = "org.automotivelinux.virtio1.define";

/// What polkit said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allowed,
    Denied,
    /// Polkit is not on the bus.
    Absent,
}

/// Says whether the sender of a message may change a device; each method and each property
/// that changes something asks first.
///
/// # Errors
/// As [`may_do`].
pub async fn may_change(connection: &Connection, header: Option<&Header<'_>>) -> fdo::Result<()> {
    may_do(connection, header, MANAGE_ACTION).await
}

/// Says whether the sender of a message may do what this polkit action is about.
///
/// `header` is what `#[zbus(header)]` gives; a call without one came from this process.
///
/// # Errors
/// `AccessDenied` with the name of the action.
pub async fn may_do(
    connection: &Connection,
    header: Option<&Header<'_>>,
    action: &str,
) -> fdo::Result<()> {
    let Some(header) = header else {
        return Ok(());
    };
    let Some(sender) = header.sender() else {
        return Err(fdo::Error::AccessDenied(
            "the message does not say who sent it".to_owned(),
        ));
    };
    let bus = DBusProxy::new(connection).await?;
    let user = bus
        .get_connection_unix_user(BusName::from(sender.clone()))
        .await?;
    let own = rustix::process::geteuid().as_raw();
    if user == 0 {
        return Ok(());
    }
    let interactive = header
        .primary()
        .flags()
        .contains(Flags::AllowInteractiveAuth);
    let verdict = ask_polkit(connection, sender, action, interactive).await?;
    if is_allowed(user, own, verdict) {
        return Ok(());
    }
    // Anybody on the bus can ask as often as they like.
    crate::limited!(
        log::Level::Info,
        "refused {action} to user {user} ({sender})"
    );
    Err(fdo::Error::AccessDenied(format!(
        "this needs the polkit action {action}"
    )))
}

fn is_allowed(user: u32, own: u32, verdict: Verdict) -> bool {
    match verdict {
        _ if user == 0 => true,
        Verdict::Allowed => true,
        Verdict::Denied => false,
        Verdict::Absent => user == own,
    }
}

async fn ask_polkit(
    connection: &Connection,
    sender: &zbus::names::UniqueName<'_>,
    action: &str,
    interactive: bool,
) -> fdo::Result<Verdict> {
    let subject = (
        "system-bus-name",
        HashMap::from([("name", Value::from(sender.as_str()))]),
    );
    let details: HashMap<&str, &str> = HashMap::new();
    let flags = u32::from(interactive);
    let answer = connection
        .call_method(
            Some("org.freedesktop.PolicyKit1"),
            "/org/freedesktop/PolicyKit1/Authority",
            Some("org.freedesktop.PolicyKit1.Authority"),
            "CheckAuthorization",
            &(subject, action, details, flags, ""),
        )
        .await;
    match answer {
        Ok(message) => {
            let (allowed, _challenge, _details): (bool, bool, HashMap<String, String>) =
                message.body().deserialize().map_err(fdo::Error::from)?;
            Ok(if allowed {
                Verdict::Allowed
            } else {
                Verdict::Denied
            })
        }
        Err(error) if is_absent(&error) => Ok(Verdict::Absent),
        // An authority that cannot answer does not allow.
        Err(error) => {
            crate::limited!(log::Level::Warn, "polkit did not answer: {error}");
            Ok(Verdict::Denied)
        }
    }
}

fn is_absent(error: &zbus::Error) -> bool {
    let zbus::Error::MethodError(name, _, _) = error else {
        return false;
    };
    matches!(
        name.as_str(),
        "org.freedesktop.DBus.Error.ServiceUnknown" | "org.freedesktop.DBus.Error.NameHasNoOwner"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_allowed_others_by_polkit_and_the_own_user_where_there_is_none() {
        let own = 990;
        let table = [
            (0, Verdict::Denied, true),
            (0, Verdict::Absent, true),
            (1000, Verdict::Allowed, true),
            (1000, Verdict::Denied, false),
            (1000, Verdict::Absent, false),
            (own, Verdict::Denied, false),
            (own, Verdict::Absent, true),
        ];
        for (user, verdict, allowed) in table {
            assert_eq!(
                is_allowed(user, own, verdict),
                allowed,
                "{user} {verdict:?}"
            );
        }
    }
}
