// SPDX-License-Identifier: Apache-2.0

//! A jack on D-Bus.

use std::sync::Arc;

use agl_virtio_service::bus::{may_change, typed};
use zbus::message::Header;
use zbus::zvariant::Value;

use crate::config::JackConfig;
use crate::panel::Panel;

/// The name of the interface.
pub const JACK_INTERFACE: &str = "org.automotivelinux.Virtio1.Sound.Jack";

/// A jack's object.
#[derive(Clone)]
pub struct JackObject {
    index: usize,
    name: String,
    panel: Arc<Panel>,
}

impl JackObject {
    /// The object of a jack.
    #[must_use]
    pub fn new(index: usize, settings: &JackConfig, panel: Arc<Panel>) -> Self {
        Self {
            index,
            name: settings.name.clone(),
            panel,
        }
    }
}

#[zbus::interface(name = "org.automotivelinux.Virtio1.Sound.Jack")]
impl JackObject {
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> &str {
        &self.name
    }

    /// Whether something is plugged in. Setting it plugs or pulls: the guest is told at once.
    #[zbus(property)]
    fn connected(&self) -> bool {
        self.panel.jack(self.index)
    }

    #[zbus(property)]
    async fn set_connected(
        &self,
        connected: Value<'_>,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Option<Header<'_>>,
    ) -> zbus::Result<()> {
        let connected = typed("Connected", connected)?;
        may_change(connection, header.as_ref()).await?;
        self.panel.set_jack(self.index, connected);
        self.panel.host_turned();
        Ok(())
    }
}
