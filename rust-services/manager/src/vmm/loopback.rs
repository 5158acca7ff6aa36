// SPDX-License-Identifier: Apache-2.0
//! virtio-loopback: the host's own kernel is the driver, and there is no virtual machine.
//!
//! The services run as for any guest. The kernel's side, the module and its adapter, which
//! connects to each socket, is the integrator's: docs/control.md.

use super::{Control, Launch, Plan, Request, Vmm, VmmError};

pub(super) struct Loopback;

impl Vmm for Loopback {
    fn name(&self) -> &'static str {
        "virtio-loopback"
    }

    fn control(&self) -> Control {
        Control::None
    }

    fn launch(&self, _plan: &Plan<'_>) -> Result<Launch, VmmError> {
        Ok(Launch::default())
    }

    fn command(&self, _plan: &Plan<'_>, _request: Request) -> Option<Vec<String>> {
        None
    }
}
