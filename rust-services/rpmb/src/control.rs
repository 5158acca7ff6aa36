// SPDX-License-Identifier: Apache-2.0

//! The store on D-Bus: how it stands. Nothing can be changed there, and neither key nor data is
//! told.

use std::collections::HashMap;
use std::sync::Arc;

use agl_virtio_service::bus::Bus;

use crate::engine::Limits;
use crate::statistics::Statistics;
use crate::wire::CAPACITY_UNIT;

/// The name of the interface.
pub const INTERFACE: &str = "org.automotivelinux.Virtio1.Rpmb";

/// Shows the store.
///
/// # Errors
/// Never in practice: the path is the device's own.
pub fn show(
    bus: &Bus,
    backend: &'static str,
    limits: Limits,
    statistics: &Arc<Statistics>,
) -> Result<(), zbus::zvariant::Error> {
    let statistics = Arc::clone(statistics);
    bus.add("", move || Control {
        backend,
        limits,
        statistics: Arc::clone(&statistics),
    })
}

struct Control {
    backend: &'static str,
    limits: Limits,
    statistics: Arc<Statistics>,
}

#[zbus::interface(name = "org.automotivelinux.Virtio1.Rpmb")]
impl Control {
    /// Where the store lies: file, mmc, or mmc-region.
    #[zbus(property(emits_changed_signal = "const"))]
    fn backend(&self) -> &str {
        self.backend
    }

    /// Capacity in bytes.
    #[zbus(property(emits_changed_signal = "const"))]
    fn capacity(&self) -> u64 {
        u64::from(self.limits.capacity_units).saturating_mul(CAPACITY_UNIT.into())
    }

    /// Most blocks of 256 bytes in one write; 0 for any number.
    #[zbus(property(emits_changed_signal = "const"))]
    fn max_write_blocks(&self) -> u8 {
        self.limits.most_written
    }

    /// Most blocks of 256 bytes in one read; 0 for any number.
    #[zbus(property(emits_changed_signal = "const"))]
    fn max_read_blocks(&self) -> u8 {
        self.limits.most_read
    }

    /// Whether the guest has programmed its key, as far as the service knows.
    #[zbus(property(emits_changed_signal = "false"))]
    fn key_programmed(&self) -> bool {
        self.statistics.key_programmed()
    }

    /// The write counter, as far as the service knows.
    #[zbus(property(emits_changed_signal = "false"))]
    fn write_counter(&self) -> u32 {
        self.statistics.counter()
    }

    /// Whether the medium fails.
    #[zbus(property(emits_changed_signal = "false"))]
    fn failed(&self) -> bool {
        self.statistics.failed()
    }

    /// What was counted: requests by type, answers by result, blocks.
    fn statistics(&self) -> HashMap<String, u64> {
        self.statistics.counters().into_iter().collect()
    }
}
