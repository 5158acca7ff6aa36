// SPDX-License-Identifier: Apache-2.0
//! Lists all guests with their devices, and with a stream's path and a volume sets it:
//! `watch [ADDRESS [SERVICE PATH VOLUME]]`. Without an address it asks the system bus.

use agl_virtio_client::zbus::{self, connection::Builder};
use agl_virtio_client::{DeviceProxy, GuestProxy, ManagedDeviceProxy, ManagerProxy, StreamProxy};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let bus = match words.first() {
        Some(address) => Builder::address(address.as_str())?.build().await?,
        None => zbus::Connection::system().await?,
    };
    if let [_, service, path, volume] = words.as_slice() {
        let stream = StreamProxy::builder(&bus)
            .destination(service.as_str())?
            .path(path.as_str())?
            .build()
            .await?;
        stream.set_volume(volume.parse()?).await?;
        println!("{}: {}", stream.name().await?, stream.volume().await?);
        return Ok(());
    }
    for path in ManagerProxy::new(&bus).await?.guests().await? {
        let guest = GuestProxy::new(&bus, path).await?;
        println!("{}: {}", guest.name().await?, guest.state().await?);
        for path in guest.devices().await? {
            let managed = ManagedDeviceProxy::new(&bus, &path).await?;
            let name = managed.name().await?;
            if managed.service_state().await? != "running" {
                println!("  {name}: {}", managed.service_state().await?);
                continue;
            }
            let device = DeviceProxy::builder(&bus)
                .destination(managed.bus_name().await?)?
                .path(&path)?
                .build()
                .await?;
            println!("  {name}: {}", device.state().await?);
        }
    }
    Ok(())
}
