// SPDX-License-Identifier: Apache-2.0

//! The service, its bus, and a driver.

use std::path::{Path, PathBuf};

use frontend::clients::snd::SndClient;
use frontend::message_bus::{MessageBus, Policy};
use frontend::{Deadline, GuestOptions, Launch, ServiceUnderTest};

use crate::host::Host;

/// The policy file that the layer installs.
const SHIPPED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../meta-agl-virtio/recipes-virt/agl-virtio/files/org.automotivelinux.Virtio1.conf"
);
/// Bytes before the samples in the files that the service writes.
pub(crate) const HEADER: usize = 80;

/// A running service on a bus of its own.
pub(crate) struct Card {
    // Dropped in this order: the service ends before its bus.
    pub(crate) service: ServiceUnderTest,
    pub(crate) bus: MessageBus,
    pub(crate) folder: tempfile::TempDir,
}

impl Card {
    /// The built-in card, with these further words on the command line.
    pub(crate) fn start(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out");
        let output = output.to_str().unwrap();
        Self::launch(folder, &[&["--output", output], more].concat())
    }

    /// The card of a configuration; `{folder}` in it is the card's own. The guest is `car`, the
    /// device `cabin`.
    pub(crate) fn configured(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_config(folder.path(), text);
        let file = config_file(folder.path());
        Self::launch(folder, &["--config", file.to_str().unwrap()])
    }

    fn launch(folder: tempfile::TempDir, words: &[&str]) -> Self {
        assert!(
            Path::new(SHIPPED).exists(),
            "{SHIPPED} is not there: run this test in a whole checkout"
        );
        let bus = MessageBus::start(folder.path(), &Policy::System(SHIPPED.into())).unwrap();
        let service = Launch::new(
            env!("CARGO_BIN_EXE_agl-virtio-snd"),
            folder.path().join("socket"),
        )
        .args(["--bus", &bus.address()])
        .args(words)
        .log(folder.path().join("log"))
        .start()
        .unwrap();
        Self {
            service,
            bus,
            folder,
        }
    }

    /// A driver with all features.
    pub(crate) fn driver(&self) -> SndClient {
        self.driver_with(&SndClient::options())
    }

    pub(crate) fn driver_with(&self, options: &GuestOptions) -> SndClient {
        let stream = self.service.connect(Deadline::patient()).unwrap();
        SndClient::start(stream, options).unwrap()
    }

    /// Somebody on the bus who looks at the built-in card, once it is there.
    pub(crate) fn host(&self) -> Host {
        Host::of(&self.bus, "guest", "snd")
    }

    /// Somebody on the bus who looks at the configured card, once it is there.
    pub(crate) fn configured_host(&self) -> Host {
        Host::of(&self.bus, "car", "cabin")
    }

    /// The samples of the first file of a stream.
    pub(crate) fn played(&self, stream: &str) -> Vec<i16> {
        let path = self.folder.path().join(format!("out/{stream}-1.wav"));
        let bytes = std::fs::read(path).unwrap();
        let samples = bytes[HEADER..].chunks_exact(2);
        samples
            .map(|two| i16::from_le_bytes([two[0], two[1]]))
            .collect()
    }

    /// What the service has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Waits until the service has logged this.
    pub(crate) fn says(&self, text: &str) {
        until(&format!("the service says {text:?}"), || {
            self.log().contains(text)
        });
    }
}

fn config_file(folder: &Path) -> PathBuf {
    folder.join("car.toml")
}

/// Writes the configuration that [`Card::configured`] reads.
pub(crate) fn write_config(folder: &Path, text: &str) {
    let text = text.replace("{folder}", folder.to_str().unwrap());
    std::fs::write(config_file(folder), text).unwrap();
}

impl Drop for Card {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// Waits for what must come, however slow the machine is.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Deadline::patient();
    while !done() {
        assert!(!end.passed(), "{what}");
        // Between two looks at something that cannot be waited for.
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
}
