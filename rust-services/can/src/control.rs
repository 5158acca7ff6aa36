// SPDX-License-Identifier: Apache-2.0

//! Buses and controllers on D-Bus: how they are, what they count, what may be changed and injected.

use std::collections::HashMap;
use std::sync::Arc;

use agl_virtio_service::bus::{self, Bus};
use virtio_device::now;
use zbus::fdo;
use zbus::message::Header;

use crate::frame::{Frame, Id, Kind};
use crate::identifiers::IdSet;
use crate::network::{BusId, ControllerId, Medium, Network, Station};
use crate::shared::Shared;
use crate::timing::Rates;

/// The name of the interface.
pub const INTERFACE: &str = "org.automotivelinux.Virtio1.Can";

/// Shows the network.
///
/// # Errors
/// Never in practice: the path is the device's own.
pub fn show(bus: &Bus, shared: &Arc<Shared>) -> Result<(), zbus::zvariant::Error> {
    shared.set_state_change(bus.property("", INTERFACE, "Controllers")?);
    let shared = Arc::clone(shared);
    bus.add("", move || Control {
        shared: Arc::clone(&shared),
    })
}

/// A bus: name, the host's interface or nothing, state, bit/s, bit/s of FD data, load in tenths of a
/// per cent, frames, errors.
type BusRow = (String, String, String, u32, u32, u32, u64, u64);
/// A controller: name, bus, state, transmit error counter.
type ControllerRow = (String, String, String, u16);
/// A gateway: from, to, frames sent on, frames lost.
type GatewayRow = (String, String, u64, u64);

struct Control {
    shared: Arc<Shared>,
}

fn no_such(what: &str, name: &str) -> fdo::Error {
    fdo::Error::InvalidArgs(format!("there is no {what} {name}"))
}

fn controller(network: &Network, name: &str) -> fdo::Result<ControllerId> {
    let place = network.controllers.iter().position(|of| of.name == name);
    Ok(ControllerId(
        place.ok_or_else(|| no_such("controller", name))?,
    ))
}

fn bus_of(network: &Network, name: &str) -> fdo::Result<BusId> {
    let place = network.buses.iter().position(|of| of.name == name);
    Ok(BusId(place.ok_or_else(|| no_such("bus", name))?))
}

fn bus_name(network: &Network, id: BusId) -> String {
    let bus = network.buses.get(id.0);
    bus.map(|bus| bus.name.clone()).unwrap_or_default()
}

/// A set of identifiers as it is written: each pattern by itself.
fn texts(set: &IdSet) -> Vec<String> {
    let pattern = |pattern: &crate::identifiers::Pattern| {
        if pattern.extended {
            format!("{:08x}:{:08x}", pattern.id, pattern.mask)
        } else {
            format!("{:03x}:{:03x}", pattern.id, pattern.mask)
        }
    };
    set.patterns().iter().map(pattern).collect()
}

impl Control {
    fn let_pass(&self, bus: BusId, wanted: &IdSet) -> fdo::Result<()> {
        let passed = self.shared.let_pass(bus, wanted);
        passed.map_err(|error| fdo::Error::Failed(format!("the kernel's filters: {error}")))
    }
}

#[zbus::interface(name = "org.automotivelinux.Virtio1.Can")]
impl Control {
    /// The buses.
    #[zbus(property(emits_changed_signal = "false"))]
    fn buses(&self) -> Vec<BusRow> {
        let network = self.shared.network();
        let row = |bus: &crate::network::Bus| {
            let (interface, Rates { nominal, data }) = match &bus.medium {
                Medium::Virtual { rates, .. } => (String::new(), *rates),
                Medium::Interface(name, rates) => (name.clone(), *rates),
            };
            let state = bus.link().word().to_owned();
            let load = bus.load(now());
            (
                bus.name.clone(),
                interface,
                state,
                nominal,
                data,
                load,
                bus.frames,
                bus.errors,
            )
        };
        network.buses.iter().map(row).collect()
    }

    /// The controllers.
    #[zbus(property)]
    fn controllers(&self) -> Vec<ControllerRow> {
        let network = self.shared.network();
        let row = |of: &crate::network::Controller| {
            let bus = bus_name(&network, of.bus);
            (
                of.name.clone(),
                bus,
                of.state().word().to_owned(),
                of.errors(),
            )
        };
        network.controllers.iter().map(row).collect()
    }

    /// Frames that programs of the host have not read in time, on all buses.
    #[zbus(property(emits_changed_signal = "false"))]
    fn programs_lost(&self) -> u64 {
        self.shared.network().host_lost
    }

    /// The gateways.
    #[zbus(property(emits_changed_signal = "false"))]
    fn gateways(&self) -> Vec<GatewayRow> {
        let network = self.shared.network();
        let row = |of: &crate::network::Gateway| {
            let (from, to) = (bus_name(&network, of.from), bus_name(&network, of.to));
            (from, to, of.forwarded, of.lost)
        };
        network.gateways.iter().map(row).collect()
    }

    /// What a controller has counted.
    fn statistics(&self, name: &str) -> fdo::Result<HashMap<String, u64>> {
        let network = self.shared.network();
        let id = controller(&network, name)?;
        let table = network
            .controllers
            .get(id.0)
            .map(|of| of.counters.table())
            .unwrap_or_default();
        Ok(table.map(|(name, count)| (name.to_owned(), count)).into())
    }

    /// What a controller's guest may send and hear, and what is urgent to it: identifiers and masks.
    fn filters(&self, name: &str) -> fdo::Result<(Vec<String>, Vec<String>, Vec<String>)> {
        let network = self.shared.network();
        let id = controller(&network, name)?;
        let policy = network.controllers.get(id.0).map(|of| &of.policy);
        let policy = policy.ok_or_else(|| no_such("controller", name))?;
        Ok((
            texts(&policy.send),
            texts(&policy.receive),
            texts(&policy.urgent),
        ))
    }

    /// Sets what a controller's guest may send or receive, or what is urgent to it, until the
    /// service is started anew.
    async fn set_filter(
        &self,
        name: &str,
        what: &str,
        identifiers: Vec<String>,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> fdo::Result<()> {
        bus::may_change(connection, Some(&header)).await?;
        let set = IdSet::parse(&identifiers)
            .map_err(|error| fdo::Error::InvalidArgs(error.to_string()))?;
        self.shared.change(|network| {
            let id = controller(network, name)?;
            let of = network.controllers.get_mut(id.0);
            let of = of.ok_or_else(|| no_such("controller", name))?;
            let policy = &mut of.policy;
            if what != "urgent" {
                // Before a guest sends what the kernel would keep back.
                self.let_pass(of.bus, &set)?;
            }
            *match what {
                "send" => &mut policy.send,
                "receive" => &mut policy.receive,
                "urgent" => &mut policy.urgent,
                _ => {
                    let reason = format!("{what} is none of send, receive, urgent");
                    return Err(fdo::Error::InvalidArgs(reason));
                }
            } = set;
            Ok(())
        })
    }

    /// Sends a frame on a bus: identifier, whether it is an extended one, a kind of data, remote or
    /// fd, and data. Those of a remote frame say its length.
    async fn send(
        &self,
        bus: &str,
        frame: (u32, bool, &str, Vec<u8>),
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> fdo::Result<()> {
        bus::may_change(connection, Some(&header)).await?;
        let (identifier, extended, kind, data) = frame;
        let frame = Id::new(identifier, extended).and_then(|id| match kind {
            "data" => Frame::new(id, Kind::Data, &data),
            "fd" => Frame::new(id, Kind::Fd, &data),
            "remote" => Frame::remote(id, u8::try_from(data.len()).ok()?),
            _ => None,
        });
        let frame = frame.ok_or_else(|| fdo::Error::InvalidArgs("this is no frame".into()))?;
        let one = IdSet::of(frame.id());
        self.shared.change(|network| {
            let id = bus_of(network, bus)?;
            self.let_pass(id, &one)?;
            if network.send(id, Station::Injector, frame, now()) {
                Ok(())
            } else {
                Err(fdo::Error::LimitsExceeded(format!("{bus} is busy")))
            }
        })
    }

    /// Lets the next `count` frames of a controller meet an error: each is sent again, and from 32
    /// in a row on the controller leaves its bus.
    async fn inject_errors(
        &self,
        name: &str,
        count: u32,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> fdo::Result<()> {
        bus::may_change(connection, Some(&header)).await?;
        self.shared.change(|network| {
            let id = controller(network, name)?;
            if network.inject_errors(id, count) {
                Ok(())
            } else {
                Err(fdo::Error::NotSupported(
                    "a real bus has its own errors".into(),
                ))
            }
        })
    }

    /// Takes a controller off its bus.
    async fn inject_bus_off(
        &self,
        name: &str,
        #[zbus(connection)] connection: &zbus::Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> fdo::Result<()> {
        bus::may_change(connection, Some(&header)).await?;
        self.shared.change(|network| {
            let id = controller(network, name)?;
            network.leave_bus(id, now());
            Ok(())
        })
    }
}
